/** Saves the orders of one or more days as a CSV file. */
import { ApiError, apiError, get } from "./api.js";
import { $, h, onSubmit, openDialog } from "./dom.js";
import { dayOf, midnight, range, size } from "./format.js";

// The browser holds the whole file in memory.
const MOST_BYTES = 100_000_000;

const [dialog, from, to, state] = ["", "-from", "-to", "-state"].map((part) => $(`export${part}`));
let controller;

export function openExport(day) {
  from.value = to.value = day;
  from.max = to.max = dayOf(midnight());
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
    const page = await get("orders.csv", { ...range(first, last), next }, signal);
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
    if (error instanceof RangeError) error = new ApiError(0, "Choose days up to today.");
    state.textContent = apiError(error).message;
  } finally {
    $("export-stop").hidden = true;
  }
});

const stop = () => controller?.abort(new ApiError(0, "Stopped. Nothing was saved."));
$("export-stop").onclick = stop;
dialog.onclose = stop;
