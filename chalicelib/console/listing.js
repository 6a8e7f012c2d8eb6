/** Repeats requests, shows paged lists, and explains why a list is loading, empty, failed or forbidden. */
import { apiError } from "./api.js";
import { $, announce, button, h, icon, keyed, put } from "./dom.js";
import { person, refresh } from "./sign-in.js";

export function loading(state, what) {
  const lines = [1, 2, 3].map(() => h("li"));
  put(state, h("p.unseen", `Loading ${what} …`), h("ul.bones", { "aria-hidden": "true" }, lines));
}

export function empty(state, title, text) {
  put(state, h("div.empty", icon("cup"), h("p.title", title), h("p", text)));
}

/** Shows why `what` could not be loaded. If `stale` is true, older data is still visible. */
export function failed(state, what, error, retry, stale = false) {
  if (error.status === 403) {
    forbidden(state, what);
    return;
  }
  const text = stale ? `This is not up to date: ${error.message}` : `The ${what} cannot be shown: ${error.message}`;
  // Screen readers would repeat an alert that is created again.
  if (state.firstElementChild?.dataset.problem === text) return;
  const attributes = { role: "alert", "data-problem": text };
  put(state, h("div.callout.bad", attributes, icon("alarm"), h("p", text), button("Try again", retry, "quiet")));
}

/** Shows that only managers may see `what`, or that the permissions of the user have changed. */
export function forbidden(state, what) {
  const { groups, isManager } = person() ?? { groups: [] };
  const isStaff = !isManager && groups.includes("staff");
  const words = isStaff
    ? `You are signed in as staff. Staff can place orders and read the inbox. The ${what} are for managers.`
    : "The API refused this request. Your permissions have changed. Ask an administrator for access.";
  put(
    state,
    h(
      "div.empty",
      icon("lock"),
      h("h2", isStaff ? "Only for managers" : "No permission"),
      h("p", words),
      button("Check my permissions again", refresh),
    ),
  );
}

/**
 * Returns the result of `load`. Until then, the element `<id>-state` or `state` shows that it loads, or why it failed.
 * If `isVisible` is true, older data is visible meanwhile.
 */
export async function loaded({ id, what = id.replace("-", " "), isVisible, retry, signal, ...given }, load) {
  const state = given.state ?? $(`${id}-state`);
  if (!isVisible && !state.childElementCount) loading(state, what);
  try {
    const answer = await load();
    put(state);
    return answer;
  } catch (error) {
    if (!signal?.aborted) failed(state, what, error, retry, isVisible);
    throw error;
  }
}

const MOST_SECONDS = 120;

const polls = new Set();

/** Repeats a request while the page is visible. The interval grows after each failure. */
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
      apiError(error);
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

/**
 * Shows a list, newest first, that loads page by page and refreshes every few seconds.
 *
 * The list, its state and the button to load older items replace the element `id`.
 * `load(parameters, signal)` returns a page as `{items, next}`, and `refreshed(arrived)` is called with the new items.
 * `make(item)` creates the element of an item, and `update(element, item)` fills it.
 * `seconds()` returns the refresh interval.
 * If the list is empty, it shows the title and the text that `empty()` returns.
 */
export class Listing extends Poll {
  #given;
  #items = null;
  #next = null;
  #hasOlder = false;

  /** Takes `{ what, id, key, load, make, update, empty, seconds, refreshed }`. */
  constructor(given) {
    super(async (signal, retry) => {
      const arrived = await this.#refresh(signal, retry);
      given.refreshed?.(arrived);
      return given.seconds();
    });
    const [state, list] = [h("div"), h("ul.rows")];
    const older = h(
      "p.more",
      { hidden: true },
      button(`Show older ${given.what}`, () => this.#more()),
    );
    $(given.id).replaceWith(state, list, older);
    this.#given = { ...given, state, list, older };
  }

  get items() {
    return this.#items ?? [];
  }

  /** Clears and reloads the list after its filter has changed. */
  reset() {
    this.#items = null;
    this.#hasOlder = false;
    put(this.#given.list);
    this.#given.older.hidden = true;
    this.now();
  }

  async #refresh(signal, retry) {
    const { what, state, load } = this.#given;
    const place = { state, what, isVisible: this.#items !== null, retry, signal };
    const page = await loaded(place, () => load({}, signal));
    const unknown = this.#without(this.items, page.items);
    const arrived = this.#items ? unknown : [];
    // If the new page does not overlap the old list, items may be missing between them, so the old list is discarded.
    if (this.#hasOlder && unknown.length < page.items.length) {
      this.#items = [...page.items, ...this.#without(page.items, this.#items)];
    } else {
      this.#items = page.items;
      this.#next = page.next;
      this.#hasOlder = false;
    }
    this.#show(arrived);
    return arrived;
  }

  async #more() {
    const { older, load, what, state } = this.#given;
    older.firstChild.disabled = true;
    try {
      const page = await load({ next: this.#next });
      this.#items = [...this.items, ...this.#without(this.items, page.items)];
      this.#next = page.next;
      this.#hasOlder = true;
      this.#show([]);
      put(state);
      announce(`${page.items.length} older ${what} shown.`);
    } catch (error) {
      failed(state, what, error, () => this.#more(), true);
    } finally {
      older.firstChild.disabled = false;
    }
  }

  /** Returns the `items` that are not among the `known` items. */
  #without(known, items) {
    const { key } = this.#given;
    const keys = new Set(known.map(key));
    return items.filter((item) => !keys.has(key(item)));
  }

  #show(arrived) {
    const { state, list, older, key, make, update, empty: words } = this.#given;
    const makeItem = (item) => {
      const element = make(item);
      element.classList.toggle("new", arrived.includes(item));
      return element;
    };
    keyed(list, this.#items, key, makeItem, update);
    if (!this.#items.length) empty(state, ...words());
    older.hidden = !this.#next;
  }
}
