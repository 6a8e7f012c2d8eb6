/** Lists with their states: loading, empty, failed, not permitted; newest first, page by page, kept up to date. */
import { announce, button, drawing, h, icon } from "./dom.js";
import { person, refresh } from "./sign-in.js";

/** Shows that `what` is on its way. */
export function loading(state, what) {
  const lines = [1, 2, 3].map(() => h("li"));
  state.replaceChildren(h("p.unseen", `Loading ${what} …`), h("ul.bones", { "aria-hidden": "true" }, ...lines));
}

export function empty(state, title, text) {
  state.replaceChildren(h("div.empty", drawing("cup"), h("p.title", title), h("p", { text })));
}

/** Shows why `what` cannot be shown; `stale` says that an older state of it still is. */
export function failed(state, what, error, retry, stale = false) {
  if (error.status === 403) {
    forbidden(state, what);
    return;
  }
  const said = stale ? `This is not up to date: ${error.message}` : `The ${what} cannot be shown: ${error.message}`;
  if (state.textContent.startsWith(said)) return;
  state.replaceChildren(
    h("div.callout.bad", { role: "alert" }, icon("alarm"), h("p", said), button("Try again", retry, "quiet")),
  );
}

/** Says that `what` is for managers, or that the API does not take this one for a manager any more. */
export function forbidden(state, what) {
  const { groups, isManager } = person() ?? { groups: [] };
  const isStaff = !isManager && groups.includes("staff");
  const words = isStaff
    ? `You are signed in as staff: you order, and read the inbox. The ${what} are for managers.`
    : "The API does not let you see this: your rights may have changed. Whoever runs the back office gives them.";
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
 * A list that the API gives page by page, newest first.
 *
 * `load(parameters, signal)` gives `{items, next}`; `show(items, arrived)` fills the page, where `arrived` has the keys
 * of what was not there before. `refresh` reads the first page anew, and keeps the older ones that were asked for.
 */
export class Listing {
  #given;
  #items = null;
  #next = null;
  #hasOlder = false;

  /** `{ what, state, older, key, load, show, empty: [title, text], retry }`; `older` is the button for more. */
  constructor(given) {
    this.#given = given;
    given.older?.addEventListener("click", () => this.#more());
  }

  get items() {
    return this.#items ?? [];
  }

  /** Forgets what is shown, as for another filter. */
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
    // Where so much came in that this page does not reach down to the last one, the older are no longer next to it.
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
