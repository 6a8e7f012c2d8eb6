/** Shows paged lists, and explains why a list is loading, empty, failed or forbidden. */
import { announce, button, drawing, h, icon, keyed } from "./dom.js";
import { Poll } from "./poll.js";
import { person, refresh } from "./sign-in.js";

/** Shows that `what` is loading. */
export function loading(state, what) {
  const lines = [1, 2, 3].map(() => h("li"));
  state.replaceChildren(h("p.unseen", `Loading ${what} …`), h("ul.bones", { "aria-hidden": "true" }, ...lines));
}

export function empty(state, title, text) {
  state.replaceChildren(h("div.empty", drawing("cup"), h("p.title", title), h("p", { text })));
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
  state.replaceChildren(
    h("div.callout.bad", attributes, icon("alarm"), h("p", text), button("Try again", retry, "quiet")),
  );
}

/** Shows that only managers may see `what`, or that the permissions of the user have changed. */
export function forbidden(state, what) {
  const { groups, isManager } = person() ?? { groups: [] };
  const isStaff = !isManager && groups.includes("staff");
  const words = isStaff
    ? `You are signed in as staff. Staff can place orders and read the inbox. The ${what} are for managers.`
    : "The API refused this request. Your permissions have changed. Ask an administrator for access.";
  state.replaceChildren(
    h(
      "div.empty",
      drawing("lock"),
      h("h2", isStaff ? "Only for managers" : "No permission"),
      h("p", words),
      button("Check my permissions again", refresh),
    ),
  );
}

/**
 * Returns the result of `load`. The element `state` shows that `what` is loading, or why loading failed.
 * If `isVisible` is true, the data that is already visible stays visible.
 */
export async function loaded({ state, what, isVisible, retry, signal }, load) {
  if (!isVisible && !state.childElementCount) loading(state, what);
  try {
    return await load();
  } catch (error) {
    if (!signal?.aborted) failed(state, what, error, retry, isVisible);
    throw error;
  }
}

/**
 * Shows a list, newest first, that loads page by page and refreshes every few seconds.
 *
 * `load(parameters, signal)` returns `{items, next}`, and `refreshed(arrived)` is called with the new items.
 * `make(item, isNew)` creates the element of an item in `list`, and `update(element, item)` fills it.
 * A list with sections passes a function `show(items, make)` instead of `list` and `update`.
 * `older` is the button that loads older items.
 * `seconds` is the refresh interval, or a function that returns the refresh interval.
 */
export class Listing {
  #given;
  #poll;
  #items = null;
  #next = null;
  #hasOlder = false;

  /** Takes `{ what, state, list, older, key, load, make, update, show, empty: [title, text], seconds, refreshed }`. */
  constructor(given) {
    this.#given = given;
    given.older?.addEventListener("click", () => this.#more());
    this.#poll = new Poll(async (signal) => {
      const arrived = await this.#refresh(signal);
      given.refreshed?.(arrived);
      return typeof given.seconds === "function" ? given.seconds() : given.seconds;
    });
  }

  start() {
    this.#poll.start();
  }

  stop() {
    this.#poll.stop();
  }

  /** Reloads the first page, and keeps the older pages that are already loaded. */
  refresh() {
    this.#poll.now();
  }

  get items() {
    return this.#items ?? [];
  }

  /** Clears and reloads the list, for example after its filter has changed. */
  reset() {
    this.#items = null;
    this.#hasOlder = false;
    this.#display([]);
    if (this.#given.older) this.#given.older.hidden = true;
    this.refresh();
  }

  async #refresh(signal) {
    const { what, state, key, load } = this.#given;
    const place = { state, what, isVisible: this.#items !== null, retry: () => this.refresh(), signal };
    const page = await loaded(place, () => load({}, signal));
    const known = new Set(this.items.map(key));
    const arrived = this.#items ? page.items.filter((item) => !known.has(key(item))) : [];
    const first = new Set(page.items.map(key));
    // If the new page does not overlap the old list, items may be missing between them, so the old list is discarded.
    if (this.#hasOlder && page.items.some((item) => known.has(key(item)))) {
      this.#items = [...page.items, ...this.#items.filter((item) => !first.has(key(item)))];
    } else {
      this.#items = page.items;
      this.#next = page.next;
      this.#hasOlder = false;
    }
    this.#show(arrived);
    return arrived;
  }

  async #more() {
    const { older, key, load, what, state } = this.#given;
    older.disabled = true;
    try {
      const page = await load({ next: this.#next });
      const known = new Set(this.items.map(key));
      this.#items = [...this.items, ...page.items.filter((item) => !known.has(key(item)))];
      this.#next = page.next;
      this.#hasOlder = true;
      this.#show([]);
      announce(`${page.items.length} older ${what} shown.`);
    } catch (error) {
      failed(state, what, error, () => this.#more(), true);
    } finally {
      older.disabled = false;
    }
  }

  #display(items, arrived = []) {
    const { list, key, make, update, show } = this.#given;
    const isNew = new Set(arrived.map(key));
    const makeItem = (item) => make(item, isNew.has(key(item)));
    if (show) show(items, makeItem);
    else keyed(list, items, key, makeItem, update);
  }

  #show(arrived) {
    const { state, older, empty: words } = this.#given;
    this.#display(this.#items, arrived);
    if (this.#items.length) state.replaceChildren();
    else empty(state, ...(typeof words === "function" ? words() : words));
    if (older) older.hidden = !this.#next;
  }
}
