/** Creates and updates HTML and SVG elements. Text is never parsed as HTML. */
const isSet = (value) => (value ?? false) !== false;

/** Replaces the content of an element. Content can be elements, text, nested arrays, and gaps: null, undefined or false. */
export const put = (element, ...content) => element.replaceChildren(...content.flat(Infinity).filter(isSet));

const maker =
  (create) =>
  (kind, ...given) => {
    const [tag, ...classes] = kind.split(".");
    const element = create(tag);
    if (classes.length) element.setAttribute("class", classes.join(" "));
    const hasProperties = Object.getPrototypeOf(given[0] ?? "") === Object.prototype;
    const properties = hasProperties ? given.shift() : {};
    for (const [name, value] of Object.entries(properties)) {
      if (!isSet(value)) continue;
      if (name.startsWith("on")) element[name] = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    put(element, given);
    return element;
  };

/**
 * Returns an HTML element, as in `h("p.hint", "text", element)` or `h("a", { href, onclick }, …)`.
 * If the second argument is an object, it sets attributes and event handlers.
 */
export const h = maker((tag) => document.createElement(tag));

/** Returns an SVG element, and takes the same arguments as `h`. */
export const s = maker((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));

/** Returns a button with the CSS class `kind` that calls `work` when clicked. */
export const button = (text, work, kind = "usual") => h(`button.${kind}`, { type: "button", onclick: work }, text);

export const $ = (id) => document.getElementById(id);

/** Returns the icon called `name` in index.html. Screen readers ignore it. */
export const icon = (name) =>
  s("svg.icon", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("use", { href: `#icon-${name}` }));

for (const element of document.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
// Good and bad look different without color, too.
export const ICONS = { good: "done", bad: "alarm" };

export const badge = (kind, text) => h(`span.badge.${kind}`, ICONS[kind] && icon(ICONS[kind]), text);

/** Returns a radio button with its label. */
export const choice = (properties, ...content) =>
  h("label", h("input", { type: "radio", ...properties }), h("span", content));

/** Adds a radio button for each `{ value: [name, icon] }` to a fieldset. `choose(value)` is called with each choice. */
export function addChips(id, kinds, choose) {
  for (const [value, [name, drawing]] of Object.entries(kinds)) {
    const properties = { name: id, value, checked: !value, onchange: () => choose(value) };
    $(id).append(choice(properties, icon(drawing), h("span.kind", name), h("bdi.soft")));
  }
}

/** Returns a link that opens a new tab and sends no referrer. Returns plain text if `url` is not HTTP or HTTPS. */
export function link(url, ...children) {
  const safe = URL.canParse(url) && ["http:", "https:"].includes(new URL(url).protocol);
  if (!safe) return h("span", children);
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, children);
}

/** Returns a setting of the page. */
export const meta = (name) => document.querySelector(`meta[name="cafe-${name}"]`).content;

/** Links to the picture of all hops, which only the local stack has. */
export const traceLink = (id) => {
  const href = `${meta("trace")}?id=${encodeURIComponent(id)}`;
  return meta("trace") && h("a.trace", { href, target: "_blank" }, "Show every hop");
};

/** Sets the text of a tab's heading, and the title of the window. */
export function entitle(heading, text) {
  heading.textContent = text;
  document.title = `${text} · Café back office`;
}

/** Makes screen readers announce `text` once they are idle. */
export function announce(text) {
  const announcer = $("announcer");
  // Screen readers announce the same text again only if its element is new.
  put(announcer, h("p", text));
}

/**
 * Updates the children of `parent` to match `items` and their order.
 * Existing elements are reused to preserve the focus, the selection and expanded details.
 * `make(item)` creates an element, and `update(element, item)` fills it.
 */
export function keyed(parent, items, key, make, update = () => {}) {
  const known = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  const names = new Set(items.map((item) => String(key(item))));
  // Moving an element loses its focus, so old ones are removed first.
  for (const [name, element] of known) if (!names.has(name)) element.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = known.get(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
}

/** Returns whether the `state` that an element shows is a new one. Filling it again would flicker and lose the focus. */
export function isChanged(element, state) {
  const before = element.dataset.state;
  element.dataset.state = state;
  return before !== element.dataset.state;
}

/** Replaces the content of the element `id` only if `state`, any JSON, has changed. */
export function fillOnce(id, state, make) {
  if (isChanged($(id), JSON.stringify(state))) put($(id), make());
}

/** Returns an HTML section with a heading. */
export const part = (id, title, ...content) =>
  h("section", { "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title`, tabindex: -1 }, title), content);

/** Opens a dialog. The user can close the dialog with Escape, a click outside the dialog, or a `data-close` button. */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

// Each section, card and dialog of index.html is named after its heading.
document.querySelectorAll("section:not([aria-label]), form.card, dialog").forEach((element, index) => {
  const heading = element.querySelector("h1, h2");
  heading.id ||= `heading-${index}`;
  element.setAttribute("aria-labelledby", heading.id);
});

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if ((target === dialog && dialog.id !== "again") || target.closest("[data-close]")) dialog.close();
  });
}

/** Marks the button as busy while `work` runs. Until then, another press does nothing. */
export async function whileBusy(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  await work().finally(() => (button.ariaBusy = "false"));
}

/** Calls `work` when the form is submitted. While `work` runs, the button is busy and the form is read-only. */
export function onSubmit(form, work) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = form.querySelector(".primary");
    whileBusy(button, () => {
      const locks = [...form.elements].map((each) => [each, each.tagName === "BUTTON" ? "disabled" : "readOnly"]);
      const locked = locks.filter(([each, state]) => each !== button && !each[state]);
      const lock = (isLocked) => locked.forEach(([each, state]) => (each[state] = isLocked));
      lock(true);
      return work().finally(() => lock(false));
    });
  });
}
