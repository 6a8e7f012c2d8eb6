/** Repeats a request while the page is visible. The interval grows after each failure. */
import { ApiError } from "./api.js";

const MOST_SECONDS = 120;

const polls = new Set();

export class Poll {
  #work;
  #timer;
  #controller;
  #failures = 0;
  #started = false;

  /** `work(signal, retry)` sends the request, and returns the seconds until the next call, or null to stop polling. */
  constructor(work) {
    this.#work = work;
  }

  start() {
    this.#started = true;
    polls.add(this);
    return this.now();
  }

  stop() {
    this.#started = false;
    polls.delete(this);
    this.#rest();
  }

  /** Aborts the call in progress, if any, and immediately calls `work` again. */
  async now() {
    this.#rest();
    if (!this.#started || document.hidden) return;
    const controller = (this.#controller = new AbortController());
    let seconds;
    try {
      seconds = await this.#work(controller.signal, () => this.now());
      this.#failures = 0;
    } catch (error) {
      if (controller.signal.aborted) return;
      // `work` has already shown the error, so this code only lengthens the interval.
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
}

// While the page is hidden, `now` only stops the requests.
document.addEventListener("visibilitychange", () => polls.forEach((poll) => poll.now()));
