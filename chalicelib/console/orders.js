/** Shows the Orders tab, with the order form, the list of orders, and a dialog that shows a single order. */
import { ApiError, get, Submission } from "./api.js";
import { traceLink } from "./config.js";
import { $, announce, button, h, icon, keyed, onSubmit, openDialog } from "./dom.js";
import { duration, now, number, time } from "./format.js";
import { keep, recall } from "./kept.js";
import { failed, Listing, loading } from "./listing.js";
import { Poll } from "./poll.js";

const SECONDS = 10;
const LONG = 60_000;

// --- Form ------------------------------------------------------------------------------------------------------------

const form = $("order-form");
const items = $("order-items").querySelector("ol");
const submission = new Submission("order");
let itemCount = 0;

function addItem(item = "", quantity = "1") {
  itemCount += 1;
  const [itemId, quantityId] = [`order-item-${itemCount}`, `order-quantity-${itemCount}`];
  const row = h(
    "li",
    h(
      "div.field",
      h("label", { for: itemId }),
      h("input", { id: itemId, value: item, required: true, list: "order-menu" }),
    ),
    h(
      "div.field",
      h("label", { for: quantityId }),
      h("input", { id: quantityId, value: quantity, inputmode: "numeric", required: true }),
    ),
    h("button", { type: "button", class: "quiet icon-only", onclick: () => removeItem(row) }, icon("close")),
  );
  items.append(row);
  numberItems();
  return row;
}

function removeItem(row) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  numberItems();
  keepDraft();
  next.querySelector("input").focus();
  announce("Item removed.");
}

/** Numbers the items in the form, and names each field as in the error messages of the API. */
function numberItems() {
  [...items.children].forEach((row, index) => {
    const [item, quantity] = row.querySelectorAll("input");
    item.dataset.field = `items[${index}].item`;
    quantity.dataset.field = `items[${index}].quantity`;
    const place = index ? ` ${index + 1}` : "";
    item.labels[0].textContent = `Item${place}`;
    quantity.labels[0].textContent = `Quantity${place}`;
    row.querySelector("button").ariaLabel = `Remove item${place}`;
    row.querySelector("button").disabled = items.children.length === 1;
  });
}

/** Reads the order from the form. A quantity that is not a number stays a string, and the API reports the error. */
function readForm() {
  const order = {
    customerID: $("order-customer").value.trim(),
    items: [...items.children].map((row) => {
      const [item, quantity] = [...row.querySelectorAll("input")].map((input) => input.value.trim());
      return { item, quantity: /^-?\d+(\.\d+)?$/.test(quantity) ? Number(quantity) : quantity };
    }),
  };
  const note = $("order-note").value.trim();
  return note ? { ...order, note } : order;
}

const keepDraft = () => keep("draft", readForm());

function restoreDraft() {
  const { customerID = "", note = "", items: kinds = [{}] } = recall("draft") ?? {};
  $("order-customer").value = customerID;
  $("order-note").value = note;
  items.replaceChildren();
  kinds.forEach(({ item, quantity }) => addItem(item, quantity));
}

/** Shows each problem beside its field, or above the form if the problem belongs to no field. */
function showProblems(problems) {
  const inputs = [...form.querySelectorAll("[data-field]")];
  const messages = Map.groupBy(problems, ({ field }) => inputs.find((input) => input.dataset.field === field));
  for (const input of inputs) {
    const text = messages.get(input)?.map(({ message }) => message).join("; ");
    input.parentElement.querySelector(".problem")?.remove();
    input.toggleAttribute("aria-invalid", false);
    const hint = input.parentElement.querySelector(".hint")?.id;
    if (text) {
      const id = `${input.id}-problem`;
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", [id, hint].filter(Boolean).join(" "));
      input.parentElement.append(h("p.problem", { id, text }));
    } else if (hint) input.setAttribute("aria-describedby", hint);
    else input.removeAttribute("aria-describedby");
  }
  const others = messages.get(undefined) ?? [];
  $("order-problem").textContent = others.map(({ field, message }) => (field ? `${field}: ${message}` : message)).join("; ");
  $("order-problem").hidden = !others.length;
  form.querySelector("[aria-invalid]")?.focus();
}

async function place() {
  const order = readForm();
  let placed;
  try {
    placed = await submission.send("orders", order);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const isAboutFields = error.status === 400 && error.problems.length;
    showProblems(isAboutFields ? error.problems : [{ message: error.message }]);
    const invalid = form.querySelectorAll("[aria-invalid]").length;
    if (invalid) announce(invalid === 1 ? "One field is invalid." : `${invalid} fields are invalid.`);
    return;
  }
  showProblems([]);
  keep("draft", null);
  restoreDraft();
  // On a phone, focusing a field would open the keyboard and hide the new order.
  if (matchMedia("(hover: hover)").matches) $("order-customer").focus();
  follow({
    orderID: placed.orderID,
    customerID: order.customerID,
    items: order.items,
    since: now(),
    placedAfter: null,
  });
}

form.addEventListener("input", keepDraft);
onSubmit(form, place);
$("order-add").addEventListener("click", () => addItem().querySelector("input").focus());

// --- Pending ---------------------------------------------------------------------------------------------------------

let pending = [];

const pendingPoll = new Poll(async (signal) => {
  const waiting = pending.filter((each) => each.placedAfter === null);
  if (!waiting.length) return null;
  // A request by order id would return 404 until the order is stored, and browsers log each 404 as an error.
  for (const customerID of new Set(waiting.map((each) => each.customerID))) {
    const { orders } = await get("orders", { customerID, limit: 100 }, signal);
    const stored = new Set(orders.map((order) => order.orderID));
    for (const each of waiting.filter(({ orderID }) => stored.has(orderID))) {
      each.placedAfter = now() - each.since;
      announce(`The order for ${each.customerID} is stored.`);
      list.refresh();
    }
  }
  showPending();
  const eldest = Math.max(...waiting.map((each) => now() - each.since));
  return eldest < 15_000 ? 1 : eldest < LONG ? 3 : 10;
});

function follow(order) {
  pending = [order, ...pending.filter((each) => each.orderID !== order.orderID)].slice(0, 5);
  announce(`The order for ${order.customerID} is queued.`);
  showPending();
  $("order-way").scrollIntoView({ block: "nearest" });
  pendingPoll.start();
}

function showPending() {
  $("order-way").hidden = !pending.length;
  keyed($("order-way-list"), pending, (each) => each.orderID, makePending, updatePending);
}

const makePending = (each) =>
  h(
    "li.row",
    h(
      "div",
      h("p", h("b", each.customerID), " ", h("small.id", each.orderID)),
      h("p.soft", summary(each.items)),
      h("ol.steps", h("li", "Accepted"), h("li", "Queued"), h("li", "Placed")),
      h("p.hint"),
    ),
  );

function updatePending(element, { orderID, since, placedAfter }) {
  const steps = element.querySelectorAll(".steps li");
  const done = placedAfter !== null;
  steps.forEach((step, index) => step.classList.toggle("done", done || index === 0));
  steps[1].classList.toggle("going", !done);
  if (done && !steps[2].querySelector("a"))
    steps[2].replaceChildren(h("a", { href: `#orders/${orderID}`, text: "Placed" }));
  const waits = now() - since > LONG && "This takes longer than usual. A failed order appears under Dead letters.";
  element.querySelector(".hint").textContent = done ? `Placed after ${duration(placedAfter)}.` : waits || "";
}

// --- List ------------------------------------------------------------------------------------------------------------

/** Returns the items of an order as one line, such as `2 Flat white, Croissant`. */
function summary(kinds) {
  const shown = kinds.slice(0, 4).map(({ item, quantity }) => (quantity === 1 ? item : `${number(quantity)} ${item}`));
  return shown.join(", ") + (kinds.length > 4 ? ` and ${kinds.length - 4} more` : "");
}

let customer = "";

const list = new Listing({
  what: "orders",
  state: $("orders-state"),
  older: $("orders-older"),
  key: (order) => order.orderID,
  load: async (parameters, signal) => {
    const { orders, next } = await get("orders", { customerID: customer, limit: 25, ...parameters }, signal);
    return { items: orders, next };
  },
  make: makeOrder,
  show: (orders, make) => {
    keyed($("orders-list"), orders, (order) => order.orderID, make);
    suggest(
      $("order-customers"),
      orders.map((order) => order.customerID),
    );
    suggest(
      $("order-menu"),
      orders.flatMap((order) => order.items.map(({ item }) => item)),
    );
  },
  empty: () =>
    customer
      ? ["No order of this customer", `No order is stored for ${customer}.`]
      : ["No orders yet", "Stored orders appear here."],
  seconds: SECONDS,
});

function makeOrder(order, isNew) {
  return h(
    isNew ? "li.row.new" : "li.row",
    h(
      "div",
      h(
        "p",
        h("a.whole", { href: `#orders/${order.orderID}` }, h("b", order.customerID)),
        " ",
        h("small.id", order.orderID),
      ),
      h("p.soft", summary(order.items)),
    ),
    h("p.when", time(order.placedAt)),
  );
}

function suggest(datalist, values) {
  const unique = [...new Set(values)].sort().slice(0, 50);
  datalist.replaceChildren(...unique.map((value) => h("option", { value })));
}

function filter(name) {
  customer = name;
  $("orders-customer").value = name;
  $("orders-list-title").textContent = name ? `Orders of ${name}` : "Placed orders";
  list.reset();
}

$("orders-filter").addEventListener("submit", (event) => {
  event.preventDefault();
  filter($("orders-customer").value.trim());
});
// Clearing the search field removes the filter.
$("orders-customer").addEventListener("input", ({ target }) => target.value === "" && customer && filter(""));

// --- Dialog ----------------------------------------------------------------------------------------------------------

const dialog = $("order");
let shown;

async function show(orderID) {
  shown = orderID;
  const known = list.items.find((order) => order.orderID === orderID);
  const body = $("order-body");
  $("order-title").textContent = known ? `Order of ${known.customerID}` : "Order";
  loading(body, "order");
  openDialog(dialog);
  try {
    const order = known ?? (await get(`orders/${encodeURIComponent(orderID)}`));
    if (shown === orderID) showOrder(order);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const words =
      error.status === 404 ? new ApiError(404, "No order has this id, or the order is still in the queue.") : error;
    failed(body, "order", words, () => show(orderID));
  }
}

function showOrder(order) {
  $("order-title").textContent = `Order of ${order.customerID}`;
  const facts = [
    ["Placed", time(order.placedAt, "moment")],
    ["Ordered by", order.requestedBy ?? "not recorded"],
    ["Note", order.note ?? "none"],
    ["ID", h("span.id", order.orderID, traceLink(order.orderID))],
  ];
  $("order-body").replaceChildren(
    h(
      "table",
      h("thead", h("tr", h("th", { scope: "col" }, "Item"), h("th", { scope: "col" }, "Quantity"))),
      h("tbody", ...order.items.map(({ item, quantity }) => h("tr", h("td", item), h("td", number(quantity))))),
    ),
    h("dl.facts", ...facts.map(([name, value]) => h("div", h("dt", name), h("dd", value)))),
    h(
      "p",
      button(`All orders of ${order.customerID}`, () => {
        dialog.close();
        filter(order.customerID);
      }),
    ),
  );
}

dialog.addEventListener("close", () => location.hash.startsWith("#orders/") && location.replace("#orders"));

restoreDraft();

export const orders = {
  open(orderID) {
    list.start();
    pendingPoll.start();
    if (orderID) show(orderID);
    else dialog.close();
  },
  close() {
    list.stop();
    pendingPoll.stop();
    dialog.close();
  },
};
