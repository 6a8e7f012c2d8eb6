/**
 * Asks again and again, while somebody looks: it stops while the tab is hidden, and after a failure asks less often.
 */
import { ApiError } from "./api.js";

const MOST_SECONDS = 120;

const polls = new Set();

export class Poll {
  #work;
  #timer;
  #controller;
  #failures = 0;
  #wanted = false;

  /** `work(signal)` does one round, and says in how many seconds the next one is due, or null for never. */
  constructor(work) {
    this.#work = work;
  }

  start() {
    this.#wanted = true;
    polls.add(this);
    return this.now();
  }

  stop() {
    this.#wanted = false;
    polls.delete(this);
    this.#rest();
  }

  /** A round at once; what was under way is given up. */
  async now() {
    this.#rest();
    if (!this.#wanted || document.hidden) return;
    const controller = (this.#controller = new AbortController());
    let seconds;
    try {
      seconds = await this.#work(controller.signal);
      this.#failures = 0;
    } catch (error) {
      if (controller.signal.aborted) return;
      // Whoever asked has shown it; here it only means to wait longer.
      if (!(error instanceof ApiError)) throw error;
      this.#failures += 1;
      seconds = Math.min(5 * 2 ** this.#failures, MOST_SECONDS);
    }
    if (controller.signal.aborted) return;
    if (seconds === null) polls.delete(this);
    else this.#timer = setTimeout(() => this.now(), seconds * 1000);
  }

  #rest() {
    clearTimeout(this.#timer);
    this.#controller?.abort();
  }

  static visibilityChanged() {
    for (const poll of polls) {
      if (document.hidden) poll.#rest();
      else poll.now();
    }
  }
}

document.addEventListener("visibilitychange", Poll.visibilityChanged);
