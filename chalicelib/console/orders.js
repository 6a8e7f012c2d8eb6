/** Shows the Orders tab: the open orders of a day, oldest first, and below them the orders that are done. */
import { get } from "./api.js";
import { $, announce, button, fillOnce, h, icon, isChanged, keyed, put, whileBusy } from "./dom.js";
import { openExport } from "./export.js";
import { clock, counted, dayOf, MINUTE, midnight, moment, now, number, range, short, startOf } from "./format.js";
import { empty, loaded, Poll } from "./listing.js";
import { askToCancel, change, onOrder, onPlaced, showOrder, summary } from "./order.js";

const SECONDS = 4;
// Maximum number of pages of 100 open orders, and of 100 done orders.
const PAGES = 10;
const OPEN = "PLACED,READY";
const DONE = "SERVED,CANCELLED";
const STATUS = { PLACED: "Placed", READY: "Ready", SERVED: "Served", CANCELLED: "Cancelled" };

// `chosen` is empty if the page shows today.
let chosen = "";
let query = "";
const byId = new Map();
let day, isLoaded, isCut, hasDone, isDoneCut;
// Holds the orders from this page that are not stored yet.
let pending = [];
// Maps an order to why its last change failed.
const problems = new Map();
const busy = new Set();
// More orders for the suggestions.
let recent = [];
let polls;

const today = () => dayOf(midnight());
const wantedDay = () => chosen || today();
const isOpen = ({ status }) => OPEN.includes(status);
const waited = ({ placedAt }) => now() - Date.parse(placedAt);

function address(orderID, more) {
  const given = Object.entries({ day: chosen, q: query, ...more }).filter(([, value]) => value);
  return `#orders${orderID ? `/${orderID}` : ""}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

// --- Loading

/** Returns the orders on all pages, and whether there are more. */
async function all(parameters, signal) {
  const found = [];
  let next;
  for (let page = 0; page < PAGES && next !== null; page += 1) {
    const answer = await get("orders", { ...parameters, limit: 100, next }, signal);
    found.push(...answer.orders);
    next = answer.next;
  }
  return [found, next !== null];
}

const placedOn = ({ placedAt }) => dayOf(new Date(placedAt));

/** Adds orders of the day. A response may be older than what the page already knows. */
function merge(found) {
  for (const order of found) {
    const { orderID, version } = order;
    const known = byId.get(orderID)?.version;
    if (placedOn(order) !== day || known > version) continue;
    if (version > known && isOpen(order)) problems.delete(orderID);
    byId.set(orderID, order);
  }
  const isStored = ({ orderID }) => byId.has(orderID);
  for (const { customerID } of pending.filter(isStored)) announce(`The order of ${customerID} is stored.`);
  pending = pending.filter((order) => !isStored(order));
}

async function load(signal) {
  const wanted = range(day);
  let found;
  [found, isCut] = await all({ ...wanted, status: OPEN }, signal);
  const ids = new Set(found.map(({ orderID }) => orderID));
  // Another user has served or cancelled these orders.
  const left = [...byId.values()].filter((order) => !isCut && isOpen(order) && !ids.has(order.orderID));
  merge(found);
  if (!isLoaded) put($("orders-state"));
  isLoaded = true;
  show(true);
  if (!hasDone || left.length > 5) {
    [found, isDoneCut] = await all({ ...wanted, status: DONE }, signal);
    merge(found);
    hasDone = true;
  } else {
    for (const { orderID } of left) merge([await get(`orders/${orderID}`, {}, signal)]);
    if (done.open || pending.length) merge((await get("orders", { ...wanted, status: DONE, limit: 100 }, signal)).orders);
  }
}

/** Shows how many orders of the day before are open, and reads orders for the suggestions. */
async function lookBack(signal) {
  const before = dayOf(startOf(today(), -1));
  const [found] = chosen ? [[]] : await all({ ...range(before), status: OPEN }, signal);
  const link = h("a", { href: `#orders?day=${before}` }, `${counted(found.length, "order")} from yesterday`);
  fillOnce("orders-yesterday", link.href + link.text, () => found.length > 0 && h("p.callout", "Still open: ", link));
  if (recent.length) return;
  recent = (await get("orders", { limit: 100 }, signal)).orders;
  show();
}

const poll = new Poll(async (signal, retry) => {
  if (day !== wantedDay()) {
    day = wantedDay();
    byId.clear();
    problems.clear();
    pending = pending.filter((order) => placedOn(order) >= day);
    isLoaded = hasDone = false;
    polls = 0;
    showDay();
    show();
  }
  await loaded({ id: "orders", isVisible: isLoaded, retry, signal }, async () => {
    await load(signal);
    show(true);
    if (polls % 15 === 0) await lookBack(signal);
    polls += 1;
  });
  return pending.some((each) => waited(each) < MINUTE / 4) ? 1 : SECONDS;
});

// --- Table

function table(label, last) {
  const names = ["Time", "Customer", "Items", "Note", "Status", last];
  const head = h("thead", h("tr", names.map((name) => h("th", { scope: "col" }, name))));
  return h("table.work", { "aria-label": label }, head, h("tbody"));
}

const open = table("Open orders", "Change");
const doneTable = table("Done orders", "Changed");
const [done, heading] = [$("orders-done"), $("orders-open-title")];
$("orders-open").append(open);
done.append(doneTable);

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

function matches({ orderID, customerID, items, note }) {
  if (!query) return true;
  const text = plain([customerID, orderID, note, summary(items)].join(" "));
  return plain(query).split(/\s+/).every((word) => text.includes(word));
}

const fillTable = (place, rows) => keyed(place.tBodies[0], rows, ({ orderID }) => orderID, () => h("tr"), fillRow);

const words = (found, whole, kind, cut) =>
  `${query ? `${number(found)} of ` : ""}${cut ? "the newest " : ""}${counted(whole, `${kind} order`)}`;

function show(byPoll) {
  const [opened, finished] = [[], []];
  for (const order of byId.values()) (isOpen(order) || problems.has(order.orderID) ? opened : finished).push(order);
  const sorted = (found, time) =>
    found.filter(matches).sort((one, other) => (one[time] + one.orderID < other[time] + other.orderID ? -1 : 1));
  const rows = sorted(opened, "placedAt");
  const doneRows = sorted(finished, "changedAt").reverse();
  heading.textContent = words(rows.filter(isOpen).length, opened.filter(isOpen).length, "open", isCut);
  done.firstElementChild.textContent = words(doneRows.length, finished.length, "done", isDoneCut);
  heading.hidden = !isLoaded;
  done.hidden = !finished.length;
  if (!chosen) rows.push(...pending);
  open.hidden = !rows.length;
  keepPlace(byPoll, () => fillTable(open, rows));
  fillTable(doneTable, done.open ? doneRows : []);
  const none = $("orders-none");
  none.hidden = !isLoaded || rows.length;
  if (!none.hidden)
    empty(none, "No open orders", query ? `No open order contains “${query}”.` : chosen ? "" : "New orders appear here.");
  const known = [...recent, ...byId.values()];
  suggest("order-customers", known.map(({ customerID }) => customerID));
  suggest("order-menu", known.flatMap(({ items }) => items.map(({ item }) => item)));
}

/** Keeps the focus in its row, or moves it to the next row. After a poll, a press there must change nothing. */
function keepPlace(byPoll, update) {
  const [body] = open.tBodies;
  const focused = document.activeElement;
  const before = [...body.rows];
  const row = before.find((each) => each.contains(focused));
  const stops = (each) => [...(each?.querySelectorAll("a, button") ?? [])];
  const [place, stop] = [before.indexOf(row), stops(row).indexOf(focused)];
  update();
  for (const each of byPoll ? body.rows : [])
    if (![each, undefined].includes(before[each.sectionRowIndex])) each.movedAt = now();
  if (!row || body.contains(document.activeElement)) return;
  const next = stops(row.isConnected ? row : (body.rows[place] ?? body.lastElementChild));
  (next[byPoll && !row.isConnected ? 0 : stop] ?? next.at(-1) ?? heading).focus();
}

function suggest(id, values) {
  const unique = [...new Set(values)].slice(0, 50).sort();
  fillOnce(id, unique, () => unique.map((value) => h("option", { value })));
}

function fillRow(row, order) {
  const { orderID, customerID, placedAt, status, version, note } = order;
  const link = h("a", { href: address(orderID) }, customerID);
  if (row.querySelector("a")) row.querySelector("a").href = link.href;
  const late = !status && waited(order) > MINUTE && "Not stored after a minute. If it fails, managers see a dead letter.";
  const problem = late || problems.get(orderID);
  if (!isChanged(row, [status, version, problem].join())) return;
  row.className = status ?? "waits";
  const placed = new Date(placedAt);
  const items = summary(order.items);
  put(row,
    h("td", h("time", { datetime: placedAt, title: moment(placed) }, clock(placed))),
    h("th", { scope: "row", title: customerID }, status ? link : customerID),
    h("td", { title: items }, items, problem && h("p.problem", problem)),
    h("td", { title: note }, note),
    h("td", h(`span.badge${{ READY: ".good" }[status] ?? (status ? "" : ".going")}`, STATUS[status] ?? "On its way")),
    h("td", status && actions(order)),
  );
}

function actions(order) {
  const { orderID, customerID, placedAt, status, changedAt, changedBy } = order;
  const whose = `the order of ${customerID} at ${clock(new Date(placedAt))}`;
  const act = (content, label, work, kind) => {
    // A second click, or one just after a poll, may be meant for the row that has just left this place.
    const press = ({ currentTarget: pressed, detail }) =>
      detail > 1 || (detail && now() - pressed.closest("tr").movedAt < 400) || work(pressed);
    const made = button(content, press, kind);
    made.ariaLabel = made.title = label;
    return made;
  };
  if (!isOpen(order)) {
    if (problems.has(orderID)) return [act("OK", `OK, hide ${whose}`, () => problems.delete(orderID) && show())];
    return [`${short(new Date(changedAt))} by ${changedBy}`];
  }
  const step = (to, kind, ...steps) =>
    act(STATUS[to], `Mark ${whose} as ${STATUS[to]}`, (pressed) => tap(order, pressed, ...steps, to), kind);
  const cancel = (pressed) => askToCancel(order, () => tap(order, pressed, "CANCELLED"));
  const correct = () => (location.hash = address(orderID));
  return [
    ...(status === "READY"
      ? [step("SERVED")]
      : [step("READY"), step("SERVED", "quiet", "READY"), act(icon("pen"), `Correct ${whose}`, correct, "quiet")]),
    act(icon("close"), `Cancel ${whose}`, cancel, "quiet.low"),
  ];
}

/** Changes the status of an order in steps, while the pressed button is busy. */
async function tap(order, pressed, ...steps) {
  const { orderID } = order;
  if (busy.has(orderID)) return;
  busy.add(orderID);
  const bodies = steps.map((status, index) => ({ from: steps[index - 1] ?? order.status, status }));
  await whileBusy(pressed, async () => {
    const { order: fresh, problem } = await change(order, ...bodies).finally(() => busy.delete(orderID));
    changed(fresh, problem, STATUS[fresh.status].toLowerCase());
  });
}

/** Shows an order after a change, and says what the change did or why it failed. */
function changed(order, problem, did) {
  const { orderID, customerID } = order;
  merge([order]);
  problems.delete(orderID);
  if (problem) problems.set(orderID, problem);
  show();
  said.textContent = problem ?? `The order of ${customerID} is ${did}.`;
  announce(said.textContent);
}

// --- Day, search and new orders

function showDay() {
  picker.max = today();
  picker.value = wantedDay();
  const link = (id, days) => ($(id).href = address("", { day: dayOf(startOf(wantedDay(), days)) }));
  link("orders-before", -1);
  link("orders-after", 1);
}

const [picker, search, said] = ["day", "search", "said"].map((part) => $(`orders-${part}`));
// A year that is being typed has leading zeros.
picker.onchange = () => picker.value > "1" && (location.hash = address("", { day: picker.value }));
search.oninput = () => {
  query = search.value.trim();
  said.textContent = "";
  history.replaceState(null, "", address());
  showDay();
  show();
};
$("orders-export").onclick = () => openExport(wantedDay());
done.ontoggle = () => {
  show();
  poll.now();
};

onPlaced((order) => {
  pending = [...pending, order].slice(-50);
  announce(`The order of ${order.customerID} is on its way.`);
  const isSeen = location.hash.startsWith("#orders") && !document.querySelector("dialog[open]");
  if (isSeen && (chosen || query)) location.hash = "#orders";
  show();
  poll.now();
});

onOrder({
  changed,
  closed(orderID) {
    if (location.hash === `#orders/${orderID}`) location.replace(address());
    // The row may have been filled again, without the button that opened the dialog.
    const link = open.querySelector(`[data-key="${CSS.escape(orderID)}"] a`);
    if (!document.activeElement.closest("table")) (link ?? heading).focus();
  },
});

export const orders = {
  open(orderID, parameters) {
    const given = new URLSearchParams(parameters);
    const wanted = given.get("day") ?? "";
    chosen = /^[12]\d{3}-\d\d-\d\d$/.test(wanted) && wanted < today() && !Number.isNaN(+startOf(wanted)) ? wanted : "";
    query = given.get("q")?.trim() ?? "";
    if (search.value.trim() !== query) search.value = query;
    said.textContent = "";
    showDay();
    $("orders-after").hidden = $("orders-today").hidden = !chosen;
    poll.start();
    if (isLoaded) show();
    if (orderID) showOrder(orderID);
  },
  close: () => poll.stop(),
};
