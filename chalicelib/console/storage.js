/** Shows the buckets and the growth of a storage report, and the newest report of each way to measure. */
import { get } from "./api.js";
import { $, button, choice, fillOnce, h, s } from "./dom.js";
import { counted, HOUR, size, time } from "./format.js";
import { empty, loaded } from "./listing.js";

const SHOWN = 8;
// The list of reports omits the way to measure, so up to this many reports are read to find one report of each.
const LOOKED_AT = 9;
const DAY = 24 * HOUR;
// The size of the picture of a bucket's growth, and its margin, in pixels.
const [WIDTH, HEIGHT, MARGIN] = [96, 32, 3];

const WAYS = {
  listing: "Counted object by object",
  versions: "Counted with old versions",
  metrics: "CloudWatch's daily figures",
};
// Maps each kind of part to its name, in the order of the bars.
const PARTS = {
  current: "current",
  noncurrent: "old versions",
  unfinishedUploads: "unfinished uploads",
  deleteMarkers: "delete markers",
};

// Reports of older versions have no `versions`.
const wayOf = ({ mode, versions }) => (versions ? "versions" : mode);

// The summary of a finished report never changes.
const finished = new Map();
let newest = {};
let chosen = null;

async function newestOfEachWay(signal) {
  const { reports } = await get("reports", { kind: "storage", limit: 25 }, signal);
  const found = {};
  for (const { href } of reports.filter((each) => each.status === "SUCCEEDED").slice(0, LOOKED_AT)) {
    if (!finished.has(href)) finished.set(href, (await get(href.slice(1), {}, signal)).summary);
    found[wayOf(finished.get(href))] ??= finished.get(href);
    if (Object.keys(found).length === Object.keys(WAYS).length) break;
  }
  return found;
}

/** Shows the newest figures of each way to measure. */
export async function showStorage(signal, retry) {
  const place = { state: $("storage-state"), what: "storage", isVisible: chosen, retry, signal };
  newest = await loaded(place, () => newestOfEachWay(signal));
  if (!newest[chosen]) [chosen = null] = Object.keys(newest);
  if (!chosen) empty(place.state, "Nothing measured yet", "Request a storage report to see the buckets here.");
  const make = () => [ways(), h("div", { id: "storage-bars" }, ...sizes(newest[chosen]))];
  fillOnce("storage", JSON.stringify(newest), () => (chosen ? make() : []));
}

function ways() {
  const choose = (way) => {
    chosen = way;
    $("storage-bars").replaceChildren(...sizes(newest[way]));
  };
  return h(
    "fieldset.choices.pair",
    h("legend.unseen", "How it was measured"),
    ...Object.entries(WAYS).map(([way, title]) =>
      choice(
        { name: "storage-way", checked: way === chosen, disabled: !newest[way], onchange: () => choose(way) },
        ...[h("b", title), " ", ...asOf(newest[way])],
      ),
    ),
  );
}

/** CloudWatch figures have a date but no time. */
const moment = (at, { mode }) => time(at, mode === "metrics" ? "date" : "short");

function asOf(summary) {
  if (!summary) return ["not measured yet"];
  return summary.asOf ? ["as of ", moment(summary.asOf, summary)] : ["no figures yet"];
}

/** Returns how and when a storage report was measured, and its sizes. */
export const result = (summary) => [h("p", WAYS[wayOf(summary)], ", ", ...asOf(summary), "."), ...sizes(summary)];

/** Returns the total size, the bars and the growth of a storage report. */
function sizes(summary) {
  const { buckets, errors, partial, growth } = summary;
  const largest = Math.max(1, ...buckets.map(({ bytes }) => bytes));
  const bars = buckets
    .toSorted((one, other) => other.bytes - one.bytes)
    .map((bucket) => h("li", ...bar(bucket, largest, summary)));
  const reason = partial ? "The measurement ran out of time" : "Some buckets could not be read";
  const failures = errors.map((each) => h("li", h("b", each.bucket), `: ${each.error}`));
  return [
    h("p.lead", ...total(summary)),
    legend(buckets),
    ...shortened("bars", bars),
    failures.length > 0 && h("div.callout.bad", h("div", h("p", h("b", reason)), h("ul", ...failures))),
    ...(growth ? grown(growth, summary) : []),
  ].filter(Boolean);
}

/** Returns a list of the first lines about buckets, and a button that shows the others. */
function shortened(kind, lines) {
  const [list, rest] = [h(`ol.${kind}`, lines.slice(0, SHOWN)), lines.slice(SHOWN)];
  const showRest = () => {
    list.append(...rest);
    rest[0].tabIndex = -1;
    rest[0].focus();
    more.remove();
  };
  const more = rest.length > 0 && button(`Show ${counted(rest.length, "more bucket")}`, showRest, "quiet");
  return [list, more];
}

/** Returns the total size, and how many buckets have no figure. */
function total({ asOf, totalBytes, bucketCount, bucketsWithoutFigure: without, errors, partial, mode, versions }) {
  const missing = without ? `. CloudWatch has no figure for ${counted(without, "bucket")} (empty or new)` : "";
  if (!asOf) return [h("b", without || errors.length ? "Size unknown" : "No buckets"), missing];
  return [
    h("b", `${partial ? "At least " : ""}${size(totalBytes)}`),
    ` in ${counted(bucketCount - (without ?? 0), "bucket")}`,
    mode === "metrics" || versions ? ", old versions and unfinished uploads included" : "",
    missing,
  ];
}

/** Returns what the colors of the bars mean. */
function legend(buckets) {
  const parts = buckets.flatMap((bucket) => bucket.parts ?? []).filter(({ bytes }) => bytes);
  const kinds = Object.keys(PARTS).filter((name) => parts.some(({ kind }) => kind === name));
  const square = (kind) => s(`rect.${kind}`, { width: 12, height: 12, rx: 3 });
  const line = (kind) =>
    h("li", s("svg.bar", { "aria-hidden": "true", width: 12, height: 12 }, square(kind)), PARTS[kind]);
  return kinds.length > 0 && h("ul.legend", kinds.map(line));
}

function bar({ name, bytes, objects, asOf, parts }, largest, summary) {
  const amount = asOf || bytes || Number.isInteger(objects) ? size(bytes) : "no figure";
  const count = Number.isInteger(objects) ? ` · ${counted(objects, "object")}` : "";
  const names = Object.keys(PARTS);
  const sorted = parts?.toSorted((one, other) => names.indexOf(one.kind) - names.indexOf(other.kind));
  let x = 0;
  const stripe = ({ kind, bytes }) => {
    const width = (100 * bytes) / largest;
    x += width;
    return s(`rect.${kind}`, { x: `${x - width}%`, width: `${width}%`, height: 10 });
  };
  const track = s("rect.track", { width: "100%", height: 10 });
  const stripes = (sorted ?? [{ kind: "current", bytes }]).map(stripe);
  return [
    h("p", h("span", name), " ", h("span.soft", h("b", amount), count)),
    s("svg.bar", { "aria-hidden": "true", width: "100%", height: 10 }, track, ...stripes),
    sorted && h("p.hint", sorted.map((part) => partWords(part, summary)).join(" · ")),
  ];
}

/** Returns text such as `1.0 GB in 4 unfinished uploads, the oldest 12 days old`. */
function partWords({ kind, storageClass, bytes, count, oldest }, { asOf }) {
  if (kind === "deleteMarkers") return counted(count, "delete marker");
  const place = ["STANDARD", null].includes(storageClass) ? "" : ` in ${storageClass}`;
  if (kind !== "unfinishedUploads") return `${size(bytes)} ${PARTS[kind]}${place}`;
  const days = Math.floor((Date.parse(asOf) - Date.parse(oldest)) / DAY);
  const age = oldest ? `, the oldest ${days > 0 ? counted(days, "day") : "less than a day"} old` : "";
  return `${size(bytes)} in ${counted(count, "unfinished upload")}${place}${age}`;
}

/** Returns how much all buckets and single buckets have grown. */
function grown({ days, lastReport, monthReport, sinceLast, sinceMonth, buckets }, summary) {
  const change = (bytes) => {
    if (bytes === null) return "no figure";
    return bytes ? `${bytes > 0 ? "+" : "−"}${size(Math.abs(bytes))}` : "no change";
  };
  const changes = (last, month) => [
    ...(lastReport ? [h("b", change(last)), " since ", moment(lastReport, summary)] : []),
    lastReport && monthReport && " · ",
    ...(monthReport ? [h("b", change(month)), " in a month"] : []),
  ];
  const lines = buckets.map(({ name, sinceLast, sinceMonth, sizes }) =>
    h("li", picture(days, sizes), h("div", h("p", name), h("p.hint", changes(sinceLast, sinceMonth)))),
  );
  return [h("h3", "Growth"), h("p.soft", "All buckets: ", changes(sinceLast, sinceMonth)), ...shortened("growth", lines)];
}

/** Returns a small line of a bucket's sizes. Days without a figure are gaps. */
function picture(days, sizes) {
  const dates = days.map((day) => Date.parse(day) / DAY);
  const known = sizes.filter((bytes) => bytes !== null);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const share = (value, low, high) => (value - low) / (high - low || 1);
  let d = "";
  sizes.forEach((bytes, index) => {
    if (bytes === null) return;
    const x = MARGIN + (WIDTH - 2 * MARGIN) * share(dates[index], dates[0], dates.at(-1));
    const y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * share(bytes, least, most);
    const hasBefore = typeof sizes[index - 1] === "number" && dates[index] - dates[index - 1] === 1;
    // A line of length 0 is a dot, for a day between two gaps.
    d += `${hasBefore ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}h0`;
  });
  const figures = `${counted(known.length, "daily figure")} in ${counted(dates.at(-1) - dates[0] + 1, "day")}`;
  const label = known.length ? `${size(known[0])} to ${size(known.at(-1))}, ${figures}` : "no figure";
  return s("svg", { role: "img", "aria-label": label, width: WIDTH, height: HEIGHT }, s("path", { d }));
}
