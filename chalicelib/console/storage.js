/** Shows the buckets and the growth of a storage report, and the newest report of each way to measure. */
import { get } from "./api.js";
import { $, button, choice, fillOnce, h, put, s } from "./dom.js";
import { counted, HOUR, size, time } from "./format.js";
import { empty, loaded } from "./listing.js";

const SHOWN = 8;
// The list of reports omits the way to measure, so up to this many reports are read to find one report of each.
const LOOKED_AT = 12;
const DAY = 24 * HOUR;

const WAYS = {
  listing: "Counted object by object",
  versions: "Counted with old versions",
  metrics: "CloudWatch's daily figures",
};
// Maps each kind of part that has a size to its name, in the order of the bars.
const PARTS = { current: "current", noncurrent: "old versions", unfinishedUploads: "unfinished uploads" };

// Reports of older versions have no `versions`.
const wayOf = ({ mode, versions }) => (versions ? "versions" : mode);

// The summary of a finished report never changes.
const finished = new Map();
let newest = {};
let chosen = null;

async function newestOfEachWay(signal) {
  const { reports } = await get("reports", { kind: "storage", limit: LOOKED_AT }, signal);
  const found = {};
  for (const { href } of reports.filter(({ status }) => status === "SUCCEEDED")) {
    if (!finished.has(href)) finished.set(href, (await get(href.slice(1), {}, signal)).summary);
    found[wayOf(finished.get(href))] ??= finished.get(href);
    if (Object.keys(found).length === Object.keys(WAYS).length) break;
  }
  return found;
}

/** Shows the newest figures of each way to measure. */
export async function showStorage(signal, retry) {
  newest = await loaded({ id: "storage", isVisible: chosen, retry, signal }, () => newestOfEachWay(signal));
  if (!newest[chosen]) [chosen = null] = Object.keys(newest);
  if (!chosen) empty($("storage-state"), "Nothing measured yet", "Request a storage report to see the buckets here.");
  fillOnce("storage", newest, () => chosen && [ways(), h("div", { id: "storage-bars" }, sizes(newest[chosen]))]);
}

function ways() {
  const choose = (way) => {
    chosen = way;
    put($("storage-bars"), sizes(newest[way]));
  };
  return h(
    "fieldset.choices.pair",
    h("legend.unseen", "How it was measured"),
    Object.entries(WAYS).map(([way, title]) =>
      choice({ name: "storage-way", checked: way === chosen, disabled: !newest[way], onchange: () => choose(way) }, [
        h("b", title),
        " ",
        asOf(newest[way]),
      ]),
    ),
  );
}

/** CloudWatch figures have a date but no time. */
const moment = (at, { mode }) => time(at, mode === "metrics" ? "date" : "short");

function asOf(summary) {
  if (!summary) return "not measured yet";
  return summary.asOf ? ["as of ", moment(summary.asOf, summary)] : "no figures yet";
}

/** Returns how and when a storage report was measured, and its sizes. */
export const result = (summary) => [h("p", WAYS[wayOf(summary)], ", ", asOf(summary), "."), sizes(summary)];

/** Returns the total size, the bars and the growth of a storage report. */
function sizes(summary) {
  const { buckets, errors, partial, growth, versions } = summary;
  const largest = Math.max(1, ...buckets.map(({ bytes }) => bytes));
  const bars = buckets.map((each) => bar(each, largest, summary));
  const reason = partial ? "The measurement ran out of time" : "Some buckets could not be read";
  const failures = errors.map((each) => h("li", h("b", each.bucket), `: ${each.error}`));
  return [
    h("p.lead", total(summary)),
    versions && legend(),
    shortened("bars", bars),
    failures.length > 0 && h("div.callout.bad", h("div", h("p", h("b", reason)), h("ul", failures))),
    growth && grown(growth, summary),
  ];
}

/** Returns a list of the first lines about buckets, and a button that shows the others. */
function shortened(kind, rest) {
  const list = h(`ol.${kind}`, rest.splice(0, SHOWN));
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

const stripe = (kind, x, width) => s(`rect.${kind}`, { x: `${x}%`, width: `${width}%`, height: "100%" });
const stripes = (width, ...content) => s("svg.bar", { "aria-hidden": "true", width, height: 10 }, content);

/** Returns what the colors of the bars mean. */
const legend = () =>
  h(
    "ul.legend",
    Object.entries(PARTS).map(([kind, name]) => h("li", stripes(10, stripe(kind, 0, 100)), ` ${name}`)),
  );

function bar({ name, bytes, objects, asOf, parts }, largest, summary) {
  const amount = asOf || bytes || objects !== null ? size(bytes) : "no figure";
  const count = objects !== null ? ` · ${counted(objects, "object")}` : "";
  // A summary with versions may have no parts of small buckets.
  const known = parts ?? [{ kind: summary.versions ? "track" : "current", bytes }];
  const kinds = [...Object.keys(PARTS), "deleteMarkers", "track"];
  const sorted = kinds.flatMap((kind) => known.filter((each) => each.kind === kind));
  let x = 0;
  const bars = sorted.map(({ kind, bytes }) => {
    const width = (100 * bytes) / largest;
    x += width;
    return stripe(kind, x - width, width);
  });
  return h(
    "li",
    h("p", h("span", name), " ", h("span.soft", h("b", amount), count)),
    stripes("100%", stripe("track", 0, 100), bars),
    parts && h("p.hint", sorted.map((each) => inWords(each, summary)).join(" · ")),
  );
}

/** Returns text such as `1.0 GB in 4 unfinished uploads, the oldest 12 days old`. */
function inWords({ kind, storageClass, bytes, count, oldest }, { asOf }) {
  if (kind === "deleteMarkers") return counted(count, "delete marker");
  const place = storageClass === "STANDARD" ? "" : ` in ${storageClass}`;
  if (kind !== "unfinishedUploads") return `${size(bytes)} ${PARTS[kind]}${place}`;
  const days = Math.floor((Date.parse(asOf) - Date.parse(oldest)) / DAY);
  const age = oldest ? `, the oldest ${days > 0 ? counted(days, "day") : "less than a day"} old` : "";
  return `${size(bytes)} in ${counted(count, "unfinished upload")}${place}${age}`;
}

/** Returns how much all buckets and single buckets have grown. */
function grown({ days, lastReport, monthReport, buckets, ...whole }, summary) {
  const change = (bytes) => {
    if (bytes === null) return "no figure";
    return bytes ? `${bytes > 0 ? "+" : "−"}${size(Math.abs(bytes))}` : "no change";
  };
  const changes = ({ sinceLast, sinceMonth }) =>
    h(
      "p.hint",
      lastReport && [h("b", change(sinceLast)), " since ", moment(lastReport, summary)],
      lastReport && monthReport && " · ",
      monthReport && [h("b", change(sinceMonth)), " in a month"],
    );
  const lines = buckets.map((each) => h("li", line(days, each.sizes), h("div", h("p", each.name), changes(each))));
  return [h("h3", "Growth"), changes(whole), shortened("growth", lines)];
}

/** Returns a sparkline of a bucket's sizes. Days without a figure are gaps. */
function line(days, sizes) {
  const dates = days.map((day) => (Date.parse(day) - Date.parse(days[0])) / DAY);
  const known = sizes.filter((bytes) => bytes !== null);
  if (!known.length) return "";
  const [most, last] = [Math.max(...known), dates.at(-1)];
  const points = sizes.map((bytes, index) => {
    if (bytes === null) return "";
    const hasBefore = index && sizes[index - 1] !== null && dates[index] - dates[index - 1] === 1;
    // A line of length 0 is a dot, for a day between two gaps.
    return `${hasBefore ? "L" : "M"}${dates[index]} ${most - bytes}h0`;
  });
  const viewBox = `0 0 ${last || 1} ${most - Math.min(...known) || 1}`;
  const label = `${size(known[0])} to ${size(known.at(-1))}, ${counted(known.length, "figure")} in ${last + 1} days`;
  return s(
    "svg",
    { role: "img", "aria-label": label, viewBox, preserveAspectRatio: "none" },
    s("path", { d: points.join("") }),
  );
}
