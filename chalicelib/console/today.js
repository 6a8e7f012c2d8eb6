/** Shows the Today tab, with the latest news and the numbers of orders, reports, uploads and failures today. */
import { get } from "./api.js";
import { countFailures, countMessages, MESSAGES } from "./counts.js";
import { $, fillOnce, h, keyed, part, put, s } from "./dom.js";
import { amounts, clock, counted, HOUR, hour, midnight, number, now, time, weekday } from "./format.js";
import { brief, notifications } from "./inbox.js";
import { Listing, loaded, Poll } from "./listing.js";
import { lowBeans } from "./reports.js";
import { person } from "./sign-in.js";

const SECONDS = 15;
const NEWS = 5;
const FEWEST_HOURS = 6;
// Vertical positions in the chart are in pixels, and horizontal positions are percentages.
const TOP = 24;
const BASE = 144;
const HEIGHT = 172;

let figures = null;

const poll = new Poll(async (signal, retry) => {
  const place = { id: "figures", isVisible: figures, retry, signal };
  figures = await loaded(place, () => get("today", { since: midnight().toISOString() }, signal));
  $("today-figures").hidden = false;
  showTotals(figures);
  fillOnce("today-stock", [figures.lowStock, person()?.isManager], stock);
  countFailures(figures);
  showChart(figures.orders);
  return SECONDS;
});

const news = new Listing({
  what: "news",
  id: "today-news-list",
  key: (each) => each.messageId,
  load: async (_, signal) => {
    const page = await notifications({ limit: MESSAGES }, signal);
    countMessages(page);
    return { items: page.items.slice(0, NEWS), next: null };
  },
  make: brief,
  empty: () => ["No news yet", "New orders, uploads and reports appear here."],
  seconds: () => SECONDS,
});

function showTotals({ orders, reports, uploads, failures }) {
  $("today-about").textContent = `${weekday(now())}, as of ${clock(now())}`;
  const { deadLetters, alarms } = failures;
  const problems = [deadLetters && counted(deadLetters, "dead letter"), alarms && counted(alarms, "alarm")];
  const failed = deadLetters + alarms;
  const atLeast = (amount, { more }) => (more ? "≥ " : "") + number(amount);
  // Each tile has a tab, a title, a number, a note and a problem.
  const tiles = [
    ["orders", "Orders", atLeast(orders.stored, orders), amounts({ "on the queue": orders.waiting }), ""],
    [
      "reports",
      "Reports",
      atLeast(reports.succeeded, reports),
      amounts({ running: reports.running }),
      amounts({ failed: reports.failed }),
    ],
    [
      "uploads",
      "Uploads",
      atLeast(uploads.imported, uploads),
      amounts({ "undone or other": uploads.other }),
      amounts({ "not imported": uploads.notImported }),
    ],
    ["dead-letters", "Failures", atLeast(failed, failures), failed ? "" : "none", problems.filter(Boolean).join(", ")],
  ];
  const make = ([tab, title]) => {
    const name = tab === "orders" || person()?.isManager ? h("a.whole", { href: `#${tab}` }, title) : title;
    return h("div", h("dt", name), h("dd"), h("dd.note"), h("dd.note.problem"));
  };
  const update = (tile, [tab, , ...texts]) => {
    tile.querySelectorAll("dd").forEach((each, index) => (each.textContent = texts[index]));
    tile.classList.toggle("bad", tab === "dead-letters" && failed > 0);
  };
  keyed($("today-totals"), tiles, ([tab]) => tab, make, update);
}

function stock() {
  const { lowStock: low } = figures;
  const opens = (href, text, other = text) => (person()?.isManager ? h("a", { href }, text) : other);
  const content = low
    ? ["From the ", opens(`#${low.href.slice(1)}`, "inventory report"), " of ", time(low.generatedAt), "."]
    : ["Shown after the next inventory report. ", opens("#reports", "Request one.", "A manager can request one.")];
  return part("today-stock", "Low in stock", h("p.soft", content), low && lowBeans(low));
}

/** Returns the hours with orders, those between, and the present hour, each with its number or null if unknown. */
function hoursOfToday(counts) {
  const [first, end] = [midnight().getTime(), midnight(-1).getTime()];
  const known = new Map(counts.map(([start, count]) => [Date.parse(start), count]));
  const present = first + Math.floor((now() - first) / HOUR) * HOUR;
  const shown = [present, ...known.keys()].filter((start) => start === present || known.get(start) !== 0);
  const to = Math.min(end, Math.max(...shown.map((start) => start + HOUR), Math.min(...shown) + FEWEST_HOURS * HOUR));
  const hours = [];
  for (let start = Math.min(...shown, to - FEWEST_HOURS * HOUR); start < to; start += HOUR) {
    hours.push([new Date(start), start > now() ? null : known.has(start) ? known.get(start) : 0]);
  }
  return hours;
}

function showChart(orders) {
  const hours = hoursOfToday(orders.hours);
  const passed = hours.filter(([start]) => start <= now());
  const most = Math.max(...passed.map(([, count]) => count ?? 0));
  const [busiest] = passed.find(([, count]) => count === most) ?? [];
  $("today-orders-about").textContent = most
    ? `Busiest from ${hour(busiest)} to ${hour(+busiest + HOUR)}, with ${counted(most, "order")}.`
    : "No orders since midnight.";
  const share = 100 / hours.length;
  // A phone has room for the labels of some hours only.
  const every = Math.ceil(hours.length / 7);
  const bars = hours.flatMap(([start, count], index) => {
    const height = count ? Math.max(4, ((BASE - TOP) * count) / most) : 2;
    const middle = `${(index + 0.5) * share}%`;
    const isNow = index === passed.length - 1;
    const kind = count === null ? "to-come" : count ? (isNow ? "now" : "bar") : "none";
    const [x, width, y] = [`${(index + 0.14) * share}%`, `${share * 0.72}%`, BASE - height];
    return [
      s(
        "rect",
        { class: kind, x, width, y, height, rx: Math.min(4, height / 2) },
        count !== null && s("title", `${hour(start)}: ${counted(count, "order")}`),
      ),
      count > 0 && s("text.number", { x: middle, y: y - 6 }, number(count)),
      s("text", { x: middle, y: BASE + 20, class: index % every ? "between" : null }, hour(start)),
    ];
  });
  const values = passed.filter(([, count]) => count).map(([start, count]) => `${hour(start)}: ${number(count)}`);
  const label = `Orders by hour. ${values.join("; ") || "None yet."}`;
  put($("today-chart"), s("svg.chart", { role: "img", "aria-label": label, width: "100%", height: HEIGHT }, bars));
}

export const today = {
  open() {
    poll.start();
    news.start();
  },
  close() {
    poll.stop();
    news.stop();
  },
};
