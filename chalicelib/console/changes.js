/** Shows the beans and rows that an upload changes, page by page. */
import { ApiError, get } from "./api.js";
import { announce, button, h, part } from "./dom.js";
import { number } from "./format.js";
import { loaded } from "./listing.js";

const FIRST = 20;
const MORE = 100;

// Maps each kind of change to its title, its name in an upload's `counts`, its explanation, and a function that returns
// the content of a row.
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

/** Returns a bean's name, such as `Geisha (Café Altura, Arabica)`. */
export const beanName = ({ supplier_name: supplier, type, product_name: product }) =>
  `${product} (${supplier}, ${type})`;

export const changeList = (...rows) => h("ul.rows", ...rows);

/** Returns a row of a list of changes. A bad row and a sample have no bean. */
export const changeRow = (change, ...content) =>
  h(
    "li.row",
    h(
      "div",
      change.product_name !== undefined &&
        h("p", h("b", change.product_name), " ", h("span.soft", `${change.supplier_name}\u00a0· ${change.type}`)),
      ...content,
    ),
    change.line !== undefined && h("p.when", `line ${number(change.line)}`),
  );

function shown(name, value) {
  if (value === null || value === "") return h("span.soft", "empty");
  return h("bdi", name === "quantity" ? number(value) : value);
}

/** Returns a bean's fields that differ, as `quantity 12 → 40`. If `before` is null, returns all fields that are set. */
export function fields(before, after) {
  const names = ["quantity", "price", "description"].filter((name) =>
    before ? before[name] !== after[name] : after[name] !== null && after[name] !== "",
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
  return h("dl.fields", ...names.map((name) => h("div", h("dt", name), " ", h("dd", ...pair(name)))));
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

/** Returns the numbers of an upload, and a section for each kind of change. */
export function changes({ uploadId, counts }) {
  // An import without a preview does not count the beans that the file does not mention.
  const known = Object.entries(KINDS).filter(([, [, name]]) => counts[name] !== null);
  const tiles = known.map(([kind, [title, name]]) => tile(title, counts[name], kind));
  tiles.splice(2, 0, tile("Unchanged", counts.unchanged));
  const kinds = Object.keys(KINDS).filter((kind) => counts[KINDS[kind][1]]);
  return [h("dl.totals", ...tiles), ...kinds.map((kind) => section(uploadId, kind, counts[KINDS[kind][1]]))];
}

/** Returns a tile with a number. Its title leads to the section about `kind`. */
function tile(title, amount, kind) {
  const lead = (event) => {
    event.preventDefault();
    const heading = document.getElementById(`${kind}-title`);
    heading.scrollIntoView({ block: "start" });
    heading.focus({ preventScroll: true });
  };
  const name = kind && amount ? h("a.whole", { href: location.hash, onclick: lead }, title) : title;
  return h(kind === "bad" && amount ? "div.bad" : "div", h("dt", name), h("dd", number(amount)));
}

function section(uploadId, kind, total) {
  const [title, , about, content] = KINDS[kind];
  const list = changeList();
  const state = h("div");
  const more = button("Show more", load);
  const amount = h("span.hint");
  const found = part(
    kind,
    [title, " ", h("span.soft", number(total))],
    about && h("p", about),
    state,
    list,
    h("p.more", more, " ", amount),
  );
  let next;

  async function load() {
    more.disabled = true;
    const isFirst = !list.childElementCount;
    const place = { state, what: "rows", isVisible: !isFirst, retry: load };
    try {
      const query = { change: kind, limit: isFirst ? FIRST : MORE, next };
      const page = await loaded(place, () => get(`uploads/${encodeURIComponent(uploadId)}`, query));
      const rows = page.changes.map((each) => changeRow(each, content(each)));
      state.replaceChildren();
      list.append(...rows);
      next = page.next;
      amount.textContent = `${number(list.childElementCount)} of ${number(total)}`;
      more.parentElement.hidden = !next;
      // No rows are kept of a file that was imported without a preview.
      found.hidden = !list.childElementCount;
      if (!isFirst) announce(`${number(rows.length)} more rows shown, ${amount.textContent}.`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    } finally {
      more.disabled = false;
    }
  }

  more.parentElement.hidden = true;
  load();
  return found;
}
