/** Saves the orders of one or more days as a CSV file. */
import { ApiError, get } from "./api.js";
import { $, h, onSubmit, openDialog } from "./dom.js";
import { size } from "./format.js";

// The browser holds the whole file in memory.
const MOST_BYTES = 100_000_000;

const [dialog, from, to, state] = ["", "-from", "-to", "-state"].map((part) => $(`export${part}`));
let controller;

/** Returns a date such as `2026-11-30`, which is the Swedish format. */
export const dayOf = (date) => date.toLocaleDateString("sv");

/** Returns the start of a day such as `2026-11-30`, or of the day `later` days later. */
export function startOf(day, later = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + later);
  return date;
}

/** Returns the query parameters for the orders from one day to another. */
export const range = (first, last = first) => ({
  since: startOf(first).toISOString(),
  until: startOf(last, 1).toISOString(),
});

export function openExport(day) {
  from.value = to.value = day;
  state.textContent = "";
  openDialog(dialog);
}

async function save() {
  const [first, last] = [from.value, to.value].sort();
  const name = `orders-${[...new Set([first, last])].join("-to-")}.csv`;
  const { signal } = (controller = new AbortController());
  const blobs = [];
  let [bytes, next] = [0];
  do {
    state.textContent = `Loading orders, ${size(bytes)} so far …`;
    const page = await get("orders.csv", { ...range(first, last), next }, signal, true);
    blobs.push(page.blob);
    bytes += page.blob.size;
    if (bytes > MOST_BYTES) throw new ApiError(0, "The file is too large. Choose fewer days.");
    next = page.next ?? undefined;
  } while (next);
  const href = URL.createObjectURL(new Blob(blobs, { type: "text/csv" }));
  h("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
  state.textContent = `Saved as ${name}, ${size(bytes)}.`;
}

onSubmit($("export-form"), async () => {
  $("export-stop").hidden = false;
  try {
    await save();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    state.textContent = error.message;
  } finally {
    $("export-stop").hidden = true;
  }
});

const stop = () => controller?.abort(new ApiError(0, "Stopped. Nothing was saved."));
$("export-stop").addEventListener("click", stop);
dialog.addEventListener("close", stop);
