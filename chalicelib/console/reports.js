/** Shows the Reports tab, with the request form, the list of reports, and the progress and result of a report. */
import { apiError, get, Submission } from "./api.js";
import { $, announce, badge, button, entitle, fillOnce, h, icon, isChanged, link, onSubmit, part, put, traceLink } from "./dom.js";
import { countdown, duration, now, number, short, time } from "./format.js";
import { Listing, loaded, Poll } from "./listing.js";
import { MachinePicture } from "./machine.js";
import { result, showStorage } from "./storage.js";

const SECONDS = 20;
const SECONDS_RUNNING = 4;
const SECONDS_WATCHED = 1;

const NAMES = { inventory: "Inventory report", storage: "Storage report" };
const STATUS = {
  RUNNING: ["going", "Running"],
  SUCCEEDED: ["good", "Ready"],
  FAILED: ["bad", "Failed"],
  TIMED_OUT: ["bad", "Timed out"],
  ABORTED: ["bad", "Stopped"],
};

const EXPIRED = "The link has expired. Make a new one.";

const badgeOf = (status) => badge(...STATUS[status]);

const took = ({ startedAt, finishedAt }) => (finishedAt ? Date.parse(finishedAt) : now()) - Date.parse(startedAt);

// --- Form

const form = $("report-form");
const submission = new Submission("report");
// Holds the failed report to request again.
let again = null;

form.onchange = () => {
  $("report-mode").hidden = form.elements.kind.value !== "storage";
  $("report-versions").hidden = form.elements.mode.value !== "listing";
};
onSubmit(form, async () => {
  const asked = again ?? Object.fromEntries(new FormData(form));
  const { kind } = asked;
  $("report-problem").textContent = "";
  try {
    // The list of reports omits how to measure.
    const { mode, versions } = kind === "inventory" || asked.mode ? asked : await get(asked.href.slice(1));
    const body = kind === "inventory" ? { kind } : { kind, mode };
    if (mode === "listing" && versions) body.versions = true;
    const { reportId } = await submission.send("create_report", body);
    location.hash = `#reports/${reportId}`;
  } catch (error) {
    $("report-problem").textContent = apiError(error).message;
  }
});

const againButton = (failed) =>
  button(["Try again", h("span.unseen", ` ${failed.reportId}`)], () => {
    again = failed;
    location.hash = "#reports";
    form.requestSubmit();
    // While the form is busy, it ignores the request.
    again = null;
  });

// --- List

const storagePoll = new Poll(async (signal, retry) => {
  await showStorage(signal, retry);
  return SECONDS;
});

const list = new Listing({
  what: "reports",
  id: "reports-list",
  key: (each) => each.href,
  load: async (parameters, signal) => {
    const { reports, next } = await get("reports", { kind: $("reports-kind").value, limit: 10, ...parameters }, signal);
    return { items: reports, next };
  },
  make: makeReport,
  update: updateReport,
  empty: () => ["No reports yet", "Request one. It takes a few seconds."],
  seconds: () => (list.items.some((each) => each.status === "RUNNING") ? SECONDS_RUNNING : SECONDS),
});

function makeReport({ reportId, kind, startedAt, href }) {
  return h(
    "li.row",
    icon(kind === "storage" ? "storage" : "report"),
    h(
      "div",
      h("a.whole", { href: `#${href.slice(1)}` }, h("b", NAMES[kind])),
      h("span.status"),
      h("span.id", reportId),
    ),
    h("p.act", againButton({ reportId, kind, href })),
    h("p.who"),
    h("p.when", time(startedAt)),
  );
}

function updateReport(element, report) {
  const status = element.querySelector(".status");
  if (isChanged(status, report.status)) put(status, badgeOf(report.status));
  element.querySelector(".act").hidden = STATUS[report.status][0] !== "bad";
  element.querySelector(".who").textContent = report.finishedAt ? `took ${duration(took(report))}` : "";
}

$("reports-kind").onchange = () => list.reset();

// --- Report

let opened = null;
let report = null;
let picture = null;

const watch = new Poll(async (signal, retry) => {
  const wasRunning = report?.status === "RUNNING";
  // The id in the page's address may already be escaped.
  const path = `reports/${encodeURIComponent(opened).replaceAll("%25", "%")}`;
  const place = { id: "report", isVisible: report, retry, signal };
  let history;
  [report, history] = await loaded(place, () =>
    Promise.all([get(path, {}, signal), get(`${path}/history`, {}, signal)]),
  );
  showReport(history);
  if (report.status === "RUNNING") return SECONDS_WATCHED;
  if (wasRunning) announce(`Report: ${STATUS[report.status][1]}.`);
  return null;
});

function showReport(history) {
  entitle($("report-title"), `${NAMES[report.kind]}, ${short(new Date(report.startedAt))}`);
  showAbout();
  if (!picture) {
    picture = new MachinePicture();
    const progress = part("machine", "Progress", picture.element);
    put($("report-body"), h("div", { id: "report-outcome" }), h("div", { id: "report-summary" }), progress);
  }
  picture.update(history);
  fillOnce("report-summary", report.summary, summary);
  tick();
}

function showAbout() {
  const { status, startedAt, finishedAt, requestedBy, reportId } = report;
  put($("report-about"),
    badgeOf(status),
    " started ",
    time(startedAt, "moment"),
    requestedBy ? ` by ${requestedBy}` : "",
    finishedAt ? `, took ${duration(took(report))}` : `, running for ${duration(took(report), 0)}`,
    // While the report runs, this text is replaced every second, and a link would lose the focus.
    finishedAt ? traceLink(reportId) : "",
  );
}

function outcome() {
  if (report.status === "RUNNING")
    return h("p.callout", "The report is running. You can leave this page. A message in the inbox will announce it.");
  if (report.status !== "SUCCEEDED") {
    const words = h("div", h("p", h("b", "Why it failed")), h("p", report.error));
    return h("div.callout.bad", icon("alarm"), words, againButton(report));
  }
  if (!report.url) return h("p.callout", "This report has been deleted. Request a new one.");
  if (timeLeft() <= 0) {
    const renew = button("Make a new link", () => renewLink(renew), "primary");
    announce(EXPIRED);
    return h("div.card.link", h("p", renew), h("p.hint", EXPIRED));
  }
  const open = link(report.url, icon("out"), " Open the report");
  open.className = "button primary";
  const copy = button("Copy the link", () => copyLink(copy));
  const renew = button("Make a new link", () => renewLink(renew));
  return h("div.card.link", h("p.buttons", open, " ", copy, " ", renew), h("p.hint", { id: "report-expiry" }));
}

async function copyLink(button) {
  try {
    await navigator.clipboard.writeText(report.url);
  } catch {
    // If the browser denies access to the clipboard, the user copies the link manually.
    const field = h("input", { type: "text", readonly: true, value: report.url, "aria-label": "The link" });
    $("report-expiry").before(field);
    field.select();
    announce("The link is selected. Copy it.");
    return;
  }
  button.textContent = "Copied";
  announce("The link is copied.");
  setTimeout(() => (button.textContent = "Copy the link"), 2000);
}

async function renewLink(button) {
  const before = report;
  button.disabled = true;
  await watch.now();
  button.disabled = false;
  if (!report || report === before) return;
  $("report-outcome").querySelector("a")?.focus();
  announce("A new link is ready.");
}

function summary() {
  const found = report.summary;
  if (!found) return [];
  if (report.kind === "storage") return part("summary", "Buckets", result(found));
  const totals = { Beans: found.rows, Suppliers: found.suppliers, "In stock": found.quantity };
  const tiles = Object.entries(totals).map(([name, value]) => h("div", h("dt", name), h("dd", number(value))));
  const { low, changes } = found;
  const since = changes?.since && ["Since the report of ", time(changes.since), ": "];
  return [
    low && part("low", "Low in stock", lowBeans(low)),
    changes && part("changes", "What changed", h("p", since, changes.text)),
    part("summary", "Inventory", h("dl.totals", tiles)),
  ];
}

export function lowBeans({ count, limit, beans }) {
  const few = count === 1 ? "bean has" : "beans have";
  return [
    h("p", count ? `${number(count)} ${few} ${number(limit)} or fewer left.` : "No bean is low in stock."),
    h(
      "ul.rows",
      beans.map(({ name, supplier, quantity }) =>
        h("li.row", h("div", h("bdi", name), h("p.soft", h("bdi", supplier))), h("p.when", `${number(quantity)} left`)),
      ),
    ),
  ];
}

const timeLeft = () => Date.parse(report.expiresAt) - now();

/** Updates the running time of the report and the remaining time of its link once a second. */
function tick() {
  if (!report || document.hidden) return;
  const { status, error, url } = report;
  if (status === "RUNNING") showAbout();
  fillOnce("report-outcome", [status, error, url, timeLeft() <= 0], outcome);
  const expiry = $("report-expiry");
  if (expiry) expiry.textContent = `The link works for ${countdown(timeLeft())} more, for everyone who has it.`;
}

let ticking;

export const reports = {
  needs: "managers",
  open(reportId = null) {
    $("reports-all").hidden = Boolean(reportId);
    $("report").hidden = !reportId;
    if (reportId !== opened) {
      report = null;
      picture = null;
      for (const place of ["state", "body", "about"]) put($(`report-${place}`));
      $("report-title").textContent = "Report";
    }
    opened = reportId;
    reports.close();
    if (reportId) {
      watch.start();
      ticking = setInterval(tick, 1000);
    } else {
      list.start();
      storagePoll.start();
    }
  },
  close() {
    clearInterval(ticking);
    list.stop();
    storagePoll.stop();
    watch.stop();
  },
};
