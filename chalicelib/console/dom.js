/** Elements. Text becomes text and nothing else: no function here, and none of its callers, parses HTML. */
const SVG = "http://www.w3.org/2000/svg";

const isProperties = (given) => Object.getPrototypeOf(given ?? "") === Object.prototype;

function fill(element, classes, given) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const properties = isProperties(given[0]) ? given.shift() : {};
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...given.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * An HTML element: `h("p.hint", "text", element)`, or with attributes and listeners `h("a", { href, onclick }, …)`.
 * The attribute `text` is all of its content.
 */
export function h(kind, ...given) {
  const [tag, ...classes] = kind.split(".");
  return fill(document.createElement(tag), classes, given);
}

/** The same for SVG. */
export function s(kind, ...given) {
  const [tag, ...classes] = kind.split(".");
  return fill(document.createElementNS(SVG, tag), classes, given);
}

/** A button that does `work`; `kind` is how it looks. */
export const button = (text, work, kind = "usual") => h(`button.${kind}`, { type: "button", onclick: work }, text);

export const $ = (id) => document.getElementById(id);

/** One of the page's icons, for the eye only. */
export const icon = (name) => s("svg.icon", { "aria-hidden": "true" }, s("use", { href: `#icon-${name}` }));

export const drawing = (name) => s("svg.drawing", { "aria-hidden": "true" }, s("use", { href: `#drawing-${name}` }));

/** A link to another place, which learns nothing of this one; only text where the address is none of the web. */
export function link(url, ...children) {
  const safe = URL.canParse(url) && ["http:", "https:"].includes(new URL(url).protocol);
  if (!safe) return h("span", ...children);
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/** Tells a screen reader, politely, what changed. */
export function announce(text) {
  const announcer = $("announcer");
  // The same words again are a change only with an element of their own.
  announcer.replaceChildren(h("p", { text }));
}

/**
 * Makes the children of `parent` those of `items`, in their order. A child that is there stays the same element, so
 * that focus, selection and what is unfolded stay. `make(item)` gives a new one, `update(element, item)` fills any.
 */
export function keyed(parent, items, key, make, update = () => {}) {
  const known = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = known.get(name);
    known.delete(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of known.values()) element.remove();
}

/** Shows a dialog; it closes by Escape, by its buttons marked `data-close`, and by a click beside it. */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if ((target === dialog && dialog.id !== "again") || target.closest("[data-close]")) dialog.close();
  });
}

/** Has `work` done when the form is submitted, one at a time; meanwhile its button turns, and nothing in it changes. */
export function onSubmit(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector(".primary");
    if (button.ariaBusy === "true") return;
    const held = [...form.elements].map((each) => [each, each.tagName === "BUTTON" ? "disabled" : "readOnly"]);
    const changed = held.filter(([each, state]) => each !== button && !each[state]);
    changed.forEach(([each, state]) => (each[state] = true));
    button.ariaBusy = "true";
    await work().finally(() => {
      button.ariaBusy = "false";
      changed.forEach(([each, state]) => (each[state] = false));
    });
  });
}
