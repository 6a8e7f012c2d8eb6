/** Shows the beans and rows that an upload changes, page by page. */
import { apiError, get } from "./api.js";
import { announce, button, h, part } from "./dom.js";
import { number } from "./format.js";
import { loaded } from "./listing.js";

const FIRST = 20;
const MORE = 100;

// Maps each kind of change to its title, its name in an upload's `counts`, an explanation, and the content of its rows.
const KINDS = {
  changed: ["Changed", "updated", "", ({ before, after }) => fields(before, after)],
  new: ["New", "new", "", ({ after }) => fields(null, after)],
  bad: [
    "Bad rows",
    "bad",
    "These rows are left out. To include them, correct the file and upload it again.",
    ({ reason }) => h("p.problem", h("bdi", reason)),
  ],
  notMentioned: [
    "Not in the file",
    "notMentioned",
    "Beans of the same suppliers that the file does not mention. They stay as they are.",
    ({ before }) => fields(null, before),
  ],
};

export const path = (uploadId) => `uploads/${encodeURIComponent(uploadId)}`;

export const beanName = ({ supplier_name: supplier, type, product_name: product }) =>
  `${product} (${supplier}, ${type})`;

export const changeList = (...rows) => h("ul.rows", rows);

/** Returns a row of a list of changes. A bad row and a sample have no bean. */
export const changeRow = (change, ...content) =>
  h(
    "li.row",
    h(
      "div",
      change.product_name !== undefined &&
        h("p", h("b", change.product_name), " ", h("span.soft", `${change.supplier_name}\u00a0· ${change.type}`)),
      content,
    ),
    change.line !== undefined && h("p.when", `line ${number(change.line)}`),
  );

const isSet = (value) => value !== null && value !== "";

const shown = (name, value) =>
  isSet(value) ? h("bdi", name === "quantity" ? number(value) : value) : h("span.soft", "empty");

/** Returns a bean's fields that differ, as `quantity 12 → 40`. If `before` is null, returns all fields that are set. */
export function fields(before, after) {
  const names = ["quantity", "price", "description"].filter((name) =>
    before ? before[name] !== after[name] : isSet(after[name]),
  );
  const pair = (name) =>
    before
      ? [
          h("del", shown(name, before[name])),
          h("span", { "aria-hidden": "true" }, " → "),
          h("span.unseen", " becomes "),
          h("ins", shown(name, after[name])),
        ]
      : [shown(name, after[name])];
  return h(
    "dl.fields",
    names.map((name) => h("div", h("dt", name), " ", h("dd", pair(name)))),
  );
}

/** Returns a difference between the stock at the time of the preview (`then`) and the present stock (`now`). */
export function difference(each) {
  const { then, now } = each;
  if (then && now) return changeRow(each, fields(then, now));
  return changeRow(
    each,
    h("p.hint", then ? "is no longer in stock" : "has been added since"),
    fields(null, now ?? then),
  );
}

export function changes({ uploadId, counts }) {
  const kinds = Object.entries(KINDS).map(([kind, [title, name]]) => ({ kind, title, total: counts[name] }));
  // An import without a preview does not count the beans that the file does not mention.
  const tiles = kinds.filter(({ total }) => total !== null).map(tile);
  tiles.splice(2, 0, tile({ title: "Unchanged", total: counts.unchanged }));
  const sections = kinds.filter(({ total }) => total).map(({ kind, total }) => section(uploadId, kind, total));
  return [h("dl.totals", tiles), sections];
}

/** Returns a tile with a number. Its title leads to the section about `kind`. */
function tile({ kind, title, total }) {
  const lead = (event) => {
    event.preventDefault();
    const heading = document.getElementById(`${kind}-title`);
    heading.scrollIntoView({ block: "start" });
    heading.focus({ preventScroll: true });
  };
  const name = kind && total ? h("a.whole", { href: location.hash, onclick: lead }, title) : title;
  return h(kind === "bad" && total ? "div.bad" : "div", h("dt", name), h("dd", number(total)));
}

function section(uploadId, kind, total) {
  const [title, , about, content] = KINDS[kind];
  const list = changeList();
  const state = h("div");
  const more = button("Show more", load);
  const amount = h("span.hint");
  const foot = h("p.more", { hidden: true }, more, " ", amount);
  const found = part(kind, [title, " ", h("span.soft", number(total))], about && h("p", about), state, list, foot);
  let next;

  async function load() {
    more.disabled = true;
    const isFirst = !list.childElementCount;
    const place = { state, what: "rows", isVisible: !isFirst, retry: load };
    try {
      const query = { change: kind, limit: isFirst ? FIRST : MORE, next };
      const page = await loaded(place, () => get(path(uploadId), query));
      const rows = page.changes.map((each) => changeRow(each, content(each)));
      list.append(...rows);
      next = page.next;
      amount.textContent = `${number(list.childElementCount)} of ${number(total)}`;
      foot.hidden = !next;
      // No rows are kept of a file that was imported without a preview.
      found.hidden = !list.childElementCount;
      if (!isFirst) announce(`${number(rows.length)} more rows shown, ${amount.textContent}.`);
    } catch (error) {
      apiError(error);
    } finally {
      more.disabled = false;
    }
  }

  load();
  return found;
}
