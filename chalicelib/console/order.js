/** Shows the form for a new order, and the dialogs that show, correct and cancel an order. */
import { apiError, get, patch, Submission } from "./api.js";
import { ask } from "./ask.js";
import { $, announce, button, h, icon, onSubmit, openDialog, put, traceLink } from "./dom.js";
import { dayOf, now, number, short, time } from "./format.js";
import { keep, recall } from "./kept.js";
import { failed, loading } from "./listing.js";
import { person } from "./sign-in.js";

// --- Fields

const [form, correction, customer, note] = ["form", "correct", "customer", "note"].map((each) => $(`order-${each}`));
// The dialog of an order borrows these fields for a correction.
const fields = $("order-fields");
const items = fields.querySelector("ol");
let itemCount = 0;

const field = (id, value, more) =>
  h("div.field", h("label", { for: id }), h("input", { id, value, required: true, ...more }));

function addItem({ item = "", quantity = 1 } = {}) {
  itemCount += 1;
  const row = h(
    "li",
    field(`order-item-${itemCount}`, item, { list: "order-menu", placeholder: "2x Latte" }),
    field(`order-quantity-${itemCount}`, quantity, { inputmode: "numeric" }),
    button(icon("close"), () => removeItem(row), "quiet.icon-only"),
  );
  items.append(row);
  numberItems();
  return row;
}

function removeItem(row) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  numberItems();
  next.querySelector("input").focus();
  items.dispatchEvent(new Event("input", { bubbles: true }));
  announce("Item removed.");
}

/** Numbers the items, and names each field as in the error messages of the API. */
function numberItems() {
  [...items.children].forEach((row, index) => {
    const [item, quantity] = row.querySelectorAll("input");
    item.dataset.field = `items[${index}].item`;
    quantity.dataset.field = `items[${index}].quantity`;
    const place = index ? ` ${index + 1}` : "";
    item.labels[0].textContent = `Item${place}`;
    quantity.labels[0].textContent = `Quantity${place}`;
    row.lastChild.ariaLabel = `Remove item${place}`;
    row.lastChild.disabled = items.children.length === 1;
  });
}

function fillFields(kinds = [{}], text = "") {
  note.value = text ?? "";
  put(items);
  kinds.forEach(addItem);
  showProblems([]);
}

/** Returns `{ items, note }`. A quantity that is not a number stays a string, and the API reports the error. */
const readFields = () => ({
  items: [...items.children].map((row) => {
    const [item, quantity] = [...row.querySelectorAll("input")].map((input) => input.value.trim());
    // "2x Latte" is a quantity and an item.
    const [, times, name] = (quantity === "1" && /^(\d{1,5}) ?[x×] (.+)$/i.exec(item)) || [];
    const amount = times ?? quantity;
    return { item: name ?? item, quantity: /^-?\d+(\.\d+)?$/.test(amount) ? Number(amount) : amount };
  }),
  note: note.value.trim() || null,
});

/** Shows each problem beside its field, or below the fields if it belongs to none. */
function showProblems(problems) {
  const inputs = [...fields.parentElement.querySelectorAll("[data-field]")];
  const groups = Map.groupBy(problems, ({ field }) => inputs.find((input) => input.dataset.field === field));
  const words = (input) => {
    const messages = groups
      .get(input)
      ?.map(({ field, message }) => (input || !field ? message : `${field}: ${message}`));
    return messages?.join("; ") ?? "";
  };
  for (const input of inputs) {
    const text = words(input);
    const id = `${input.id}-problem`;
    $(id)?.remove();
    input.ariaInvalid = text ? "true" : null;
    input.setAttribute("aria-describedby", text ? id : "");
    if (text) input.parentElement.append(h("p.problem", { id }, text));
  }
  $("order-problem").textContent = words();
  fields.parentElement.querySelector("[aria-invalid]")?.focus();
}

function showError({ status, problems, message }) {
  showProblems(status === 400 && problems.length ? problems : [{ message }]);
  const invalid = fields.parentElement.querySelectorAll("[aria-invalid]").length;
  if (invalid) announce(invalid === 1 ? "One field is invalid." : `${invalid} fields are invalid.`);
}

// Enter places the order or saves the correction. Shift and Enter start a new line.
note.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  note.form.requestSubmit();
};

$("order-add").onclick = () => addItem().querySelector("input").focus();

// --- New order

const opener = $("order-new");
const submission = new Submission("order");

const readForm = () => ({ customerID: customer.value.trim(), ...readFields() });

function restoreDraft() {
  const draft = recall("draft");
  customer.value = draft?.customerID ?? "";
  fillFields(draft?.items, draft?.note);
}

// On a phone, the form would hide the orders.
function openForm(isOpen, takesFocus = true) {
  form.classList.toggle("open", isOpen);
  opener.ariaExpanded = String(isOpen);
  if (takesFocus) (form.checkVisibility() ? customer : opener).focus();
}

opener.onclick = () => openForm(!form.classList.contains("open"));
form.oninput = () => keep("draft", readForm());
restoreDraft();

/** Calls `placed` with each order that the API has accepted. */
export const onPlaced = (placed) =>
  onSubmit(form, async () => {
    const order = readForm();
    try {
      const { orderID } = await submission.send("orders", order);
      placed({ ...order, orderID, placedAt: new Date(now()).toISOString() });
    } catch (error) {
      apiError(error);
      if (fields.parentElement === form) showError(error);
      else dialog.addEventListener("close", () => showError(error), { once: true });
      return;
    }
    keep("draft", null);
    if (fields.parentElement !== form) return;
    const hadFocus = form.matches(":focus-within");
    restoreDraft();
    openForm(false, hadFocus);
  });

// --- Changes

const DID = {
  READY: "marked it as ready",
  SERVED: "marked it as served",
  CANCELLED: "cancelled it",
  CORRECTED: "corrected it",
};

const path = (orderID) => `orders/${encodeURIComponent(orderID)}`;

/** Returns the items of an order as one line, such as `2 Flat white, Croissant`. */
export const summary = (kinds) =>
  kinds.map(({ item, quantity }) => (quantity === 1 ? item : `${number(quantity)} ${item}`)).join(", ");

/** Returns who changed an order last, such as `Ben has already marked it as served at 10:42.` */
function explain({ changes }) {
  const { at, by, change } = changes.at(-1);
  return `${by === person().name ? "You have" : `${by} has`} already ${DID[change]} at ${short(new Date(at))}.`;
}

/** Sends changes of an order in turn. Returns `{ order, problem, error }`, with a reason in words if one failed. */
export async function change(order, ...bodies) {
  try {
    for (const body of bodies) order = await patch(path(order.orderID), body);
    return { order };
  } catch (error) {
    const fresh = apiError(error).status === 409 ? await get(path(order.orderID)).catch(() => order) : order;
    return { order: fresh, problem: fresh.version > order.version ? explain(fresh) : error.message, error };
  }
}

// --- Dialogs

const [dialog, title, body, more] = ["order", "order-title", "order-body", "order-more"].map($);
let shown, listener;

export async function showOrder(orderID) {
  shown = { orderID };
  correction.hidden = true;
  title.textContent = "Order";
  put(more);
  loading(body, "order");
  openDialog(dialog);
  try {
    const order = await get(path(orderID));
    if (shown.orderID === orderID) fill(order);
  } catch (error) {
    if (apiError(error).status === 404) error.message = "No order has this id, or the order is still in the queue.";
    failed(body, "order", error, () => showOrder(orderID));
  }
}

/** Shows an order. If there is a `problem`, the fields keep what the user wrote. */
function fill(order, problem) {
  shown = order;
  const { customerID, status, placedAt } = order;
  title.textContent = `Order of ${customerID}`;
  correction.hidden = status !== "PLACED";
  if (!correction.hidden && !problem) {
    correction.prepend(fields);
    // The new order may still be on its way.
    note.readOnly = $("order-add").disabled = false;
    fillFields(order.items, order.note);
  }
  put(body, problem && h("p.callout.bad", { role: "alert" }, problem));
  const facts = [
    ["Items", summary(order.items)],
    ["Note", order.note ?? "none"],
    ["Placed", time(placedAt, "moment")],
    ["Ordered by", order.requestedBy ?? "not recorded"],
    ...order.changes.map(({ at, by, change, before }) => [
      time(at),
      `${by} ${DID[change]}${before ? `. It was: ${[summary(before.items), before.note].filter(Boolean).join(". ")}` : ""}`,
    ]),
    ["ID", h("span.id", order.orderID, traceLink(order.orderID))],
  ];
  const search = new URLSearchParams({ day: dayOf(new Date(placedAt)), q: customerID });
  put(
    more,
    h(
      "dl.facts",
      facts.map(([name, value]) => h("div", h("dt", name), h("dd", value))),
    ),
    h("a", { href: `#orders?${search}` }, `Orders of ${customerID} on this day`),
  );
}

onSubmit(correction, async () => {
  const before = shown;
  const { order, problem, error } = await change(before, { ...readFields(), version: before.version });
  const isShown = dialog.open && shown === before;
  if (isShown && !problem) dialog.close();
  if (!isShown || !problem) listener.changed(order, problem, "corrected");
  else if (order === before) showError(error);
  else fill(order, order.status === "PLACED" ? `${problem} If you save now, you replace that correction.` : problem);
});

export function askToCancel(order, work) {
  ask({
    title: `Cancel the order of ${order.customerID}?`,
    about: [summary(order.items)],
    yes: "Cancel the order",
    no: "Keep the order",
    isDangerous: true,
    done: work,
    closed: () => listener.closed(order.orderID),
  });
}

/** Calls `changed(order, problem, did)` after a correction, and `closed(orderID)` after a dialog was closed. */
export function onOrder(given) {
  listener = given;
  dialog.addEventListener("close", () => {
    // The event comes a frame later, when another order may be open.
    if (dialog.open) return;
    form.querySelector(".primary").before(fields);
    restoreDraft();
    given.closed(shown.orderID);
  });
}
