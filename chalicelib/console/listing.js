/** Lists of pages, newest first, and their states: loading, empty, failed and forbidden. */
import { announce, button, drawing, h, icon } from "./dom.js";
import { person, refresh } from "./sign-in.js";

/** Shows that `what` is loading. */
export function loading(state, what) {
  const lines = [1, 2, 3].map(() => h("li"));
  state.replaceChildren(h("p.unseen", `Loading ${what} …`), h("ul.bones", { "aria-hidden": "true" }, ...lines));
}

export function empty(state, title, text) {
  state.replaceChildren(h("div.empty", drawing("cup"), h("p.title", title), h("p", { text })));
}

/** Shows why `what` cannot be shown. With `stale`, an older version is still visible. */
export function failed(state, what, error, retry, stale = false) {
  if (error.status === 403) {
    forbidden(state, what);
    return;
  }
  const text = stale ? `This is not up to date: ${error.message}` : `The ${what} cannot be shown: ${error.message}`;
  // A screen reader would repeat an alert that is created again.
  if (state.firstElementChild?.dataset.problem === text) return;
  const attributes = { role: "alert", "data-problem": text };
  state.replaceChildren(
    h("div.callout.bad", attributes, icon("alarm"), h("p", text), button("Try again", retry, "quiet")),
  );
}

/** Shows that `what` is only for managers, or that the API refused a manager whose groups have changed. */
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
      button("Check my rights again", refresh),
    ),
  );
}

/**
 * A list that the API returns page by page, newest first.
 *
 * `load(parameters, signal)` returns `{items, next}`. `show(items, arrived)` displays them, and `arrived` has the keys of
 * new items. `refresh` reads the first page again and keeps the older pages that are already loaded.
 */
export class Listing {
  #given;
  #items = null;
  #next = null;
  #hasOlder = false;

  /** Takes `{ what, state, older, key, load, show, empty: [title, text], retry }`. `older` is the button for more. */
  constructor(given) {
    this.#given = given;
    given.older?.addEventListener("click", () => this.#more());
  }

  get items() {
    return this.#items ?? [];
  }

  /** Removes all items, for example for another filter. */
  reset() {
    this.#items = null;
    this.#hasOlder = false;
    this.#given.show([], new Set());
    if (this.#given.older) this.#given.older.hidden = true;
  }

  async refresh(signal) {
    const { what, state, key, load, retry } = this.#given;
    if (!this.#items && !state.childElementCount) loading(state, what);
    let page;
    try {
      page = await load({}, signal);
    } catch (error) {
      if (!signal?.aborted) failed(state, what, error, retry, this.#items !== null);
      throw error;
    }
    const known = new Set(this.items.map(key));
    const arrived = this.#items ? page.items.filter((item) => !known.has(key(item))) : [];
    const first = new Set(page.items.map(key));
    // If the new page has no item of the old list, items between them are missing. Then the old list is dropped.
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

  #show(arrived) {
    const { state, older, key, show, empty: words } = this.#given;
    show(this.#items, new Set(arrived.map(key)));
    if (this.#items.length) state.replaceChildren();
    else empty(state, ...(typeof words === "function" ? words() : words));
    if (older) older.hidden = !this.#next;
  }
}
