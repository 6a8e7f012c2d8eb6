/** Shows a chart with one bar for each bucket, based on the newest storage report of the selected mode. */
import { get } from "./api.js";
import { $, button, choice, fillOnce, h, s } from "./dom.js";
import { counted, size, time } from "./format.js";
import { empty, loaded } from "./listing.js";

const SHOWN = 8;
// The list of reports omits the mode, so up to this many reports are read to find one report of each mode.
const LOOKED_AT = 6;

export const MODES = { listing: "Counted object by object", metrics: "CloudWatch's daily figures" };

// The summary of a finished report never changes.
const finished = new Map();
let newest = {};
let chosen = null;

async function newestOfEachMode(signal) {
  const { reports } = await get("reports", { kind: "storage", limit: 25 }, signal);
  const byMode = {};
  for (const { href } of reports.filter((each) => each.status === "SUCCEEDED").slice(0, LOOKED_AT)) {
    if (!finished.has(href)) finished.set(href, (await get(href.slice(1), {}, signal)).summary);
    const summary = finished.get(href);
    byMode[summary.mode] ??= { href, summary };
    if (byMode.listing && byMode.metrics) break;
  }
  return byMode;
}

/** Shows the newest figures from both measuring modes. */
export async function showStorage(signal, retry) {
  const place = { state: $("storage-state"), what: "storage", isVisible: chosen, retry, signal };
  newest = await loaded(place, () => newestOfEachMode(signal));
  if (!newest[chosen]) [chosen = null] = Object.keys(newest);
  if (!chosen) empty(place.state, "Nothing measured yet", "Request a storage report to see the buckets here.");
  const make = () => [modes(), h("div", { id: "storage-bars" }, ...bars(newest[chosen].summary))];
  fillOnce("storage", JSON.stringify(newest), () => (chosen ? make() : []));
}

function modes() {
  const choose = (mode) => {
    chosen = mode;
    $("storage-bars").replaceChildren(...bars(newest[mode].summary));
  };
  return h(
    "fieldset.choices.pair",
    h("legend.unseen", "How it was measured"),
    ...Object.entries(MODES).map(([mode, title]) =>
      choice(
        { name: "storage-mode", checked: mode === chosen, disabled: !newest[mode], onchange: () => choose(mode) },
        ...[h("b", title), " ", ...asOf(newest[mode]?.summary)],
      ),
    ),
  );
}

/** Returns when a report was measured. CloudWatch figures have a date but no time. */
export function asOf(summary) {
  if (!summary) return ["not measured yet"];
  if (!summary.asOf) return ["no figures yet"];
  return ["as of ", time(summary.asOf, summary.mode === "metrics" ? "date" : "short")];
}

/** Returns the total size and the bars of a storage report. */
export function bars(summary) {
  const { buckets, errors, partial } = summary;
  const largest = Math.max(1, ...buckets.map((bucket) => bucket.bytes));
  const sorted = [...buckets].sort((one, other) => other.bytes - one.bytes);
  const list = h("ol.bars", ...sorted.map((bucket, index) => bar(bucket, largest, index)));
  const rest = sorted.length - SHOWN;
  const showRest = () => {
    for (const line of list.children) line.hidden = false;
    list.children[SHOWN].tabIndex = -1;
    list.children[SHOWN].focus();
    more.remove();
  };
  const more = rest > 0 && button(`Show ${counted(rest, "more bucket")}`, showRest, "quiet");
  const reason = partial ? "The measurement ran out of time" : "Some buckets could not be read";
  const failures = errors.map((each) => h("li", h("b", each.bucket), `: ${each.error}`));
  return [
    h("p.lead", ...total(summary)),
    list,
    more,
    failures.length > 0 && h("div.callout.bad", h("div", h("p", h("b", reason)), h("ul", ...failures))),
  ].filter(Boolean);
}

/** Returns the total size, and how many buckets have no figure. */
function total({ asOf, totalBytes, bucketCount, bucketsWithoutFigure: without, errors, partial, mode }) {
  const missing = without ? `. CloudWatch has no figure for ${counted(without, "bucket")} (empty or new)` : "";
  if (!asOf) return [h("b", without || errors.length ? "Size unknown" : "No buckets"), missing];
  return [
    h("b", `${partial ? "At least " : ""}${size(totalBytes)}`),
    ` in ${counted(bucketCount - (without ?? 0), "bucket")}`,
    mode === "metrics" ? ", old versions and unfinished uploads included" : "",
    missing,
  ];
}

function bar({ name, bytes, objects, asOf }, largest, index) {
  const amount = asOf || bytes || objects !== null ? size(bytes) : "no figure";
  const count = Number.isInteger(objects) ? ` · ${counted(objects, "object")}` : "";
  const stripe = (kind, width) => s(kind, { width: `${width}%`, height: 10, rx: 5 });
  return h(
    "li",
    { hidden: index >= SHOWN },
    h("p", h("span", name), " ", h("span.soft", h("b", amount), count)),
    s(
      "svg.bar",
      { "aria-hidden": "true", width: "100%", height: 10 },
      stripe("rect.track", 100),
      stripe("rect", (100 * bytes) / largest),
    ),
  );
}
