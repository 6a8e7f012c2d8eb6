/** The inbox: the notifications, newest first and by day, of all kinds or of one. Other tabs show some of them too. */
import { get } from "./api.js";
import { $, announce, h, icon, keyed, link } from "./dom.js";
import { day, inZone, time } from "./format.js";
import { Listing } from "./listing.js";
import { Poll } from "./poll.js";

const SECONDS = 10;

// Each kind's name, and its icon.
const KINDS = {
  report: ["Reports", "report"],
  order: ["Orders", "cup"],
  upload: ["Uploads", "upload"],
  storage: ["Storage", "storage"],
  alarm: ["Alarms", "alarm"],
  other: ["Others", "other"],
};

/**
 * A page of the notifications. Of one kind the API gives none where the last thousand are of others: then it is asked
 * for the page behind, some times.
 */
export async function notifications(parameters, signal) {
  const items = [];
  let next;
  for (let asked = 0; asked < 5 && !items.length && next !== null; asked += 1) {
    const page = await get("notifications", { ...parameters, ...(next && { next }) }, signal);
    items.push(...page.notifications);
    next = page.next;
  }
  return { items, next };
}

const kindOf = (notification) => KINDS[notification.kind] ?? KINDS.other;

/** A message as its lines, with links; those of a file that were left out are a list. */
export function message(text) {
  const parts = h("div.message");
  for (const line of inZone(text).split("\n")) {
    if (!/^line [\d,]+: /.test(line)) parts.append(h("p", ...linked(line)));
    else if (parts.lastChild?.tagName === "UL") parts.lastChild.append(h("li", line));
    else parts.append(h("ul", h("li", line)));
  }
  return parts;
}

// An address, an order's id and a report's id, as the API writes them.
const LINKS = /(https?:\/\/\S+|(?<=\border )[\w-]+(?= of customer )|(?<=report )(?:inventory|storage)-[\w-]+)/i;

function linked(line) {
  return line.split(LINKS).map((part, index) => {
    if (index % 2 === 0) return part;
    // A report's address is a long secret that nobody reads: what is shown is where it leads.
    if (/^https?:/i.test(part)) return URL.canParse(part) ? link(part, `Open it, at ${new URL(part).host}`, icon("out")) : part;
    const tab = /^(inventory|storage)-/.test(part) ? "reports" : "orders";
    return h("a", { href: `#${tab}/${part}`, text: part });
  });
}

/** One notification in a line, for the list of the latest. */
export const brief = (notification) =>
  h(
    "li.row",
    icon(kindOf(notification)[1]),
    h("div", h("p", notification.subject || firstLine(notification))),
    h("p.when", time(notification.sentAt)),
  );

const firstLine = ({ message: text }) => inZone(text).split("\n")[0].slice(0, 100) || "No words";

/** One notification that unfolds. */
export function unfolding(notification, isNew = false) {
  const [kind, drawing] = kindOf(notification);
  return h(
    isNew ? "li.row.new" : "li.row",
    icon(drawing),
    h(
      "details",
      h(
        "summary",
        h("span.unseen", `${kind}: `),
        h("b", notification.subject || firstLine(notification)),
        h("span.soft.preview", inZone(notification.message).slice(0, 160)),
      ),
      message(notification.message),
      h("p.hint", "Sent ", time(notification.sentAt, "moment")),
    ),
    h("p.when", time(notification.sentAt)),
  );
}

let kind = "";

const poll = new Poll(async (signal) => {
  const arrived = await list.refresh(signal);
  if (arrived.length === 1) announce(`New: ${arrived[0].subject}`);
  else if (arrived.length) announce(`${arrived.length} new messages.`);
  return SECONDS;
});

const list = new Listing({
  what: "messages",
  state: $("inbox-state"),
  older: $("inbox-older"),
  key: (each) => each.messageId,
  load: (parameters, signal) => notifications({ kind, limit: 25, ...parameters }, signal),
  show: (items, arrived) => {
    const days = Map.groupBy(items, (each) => new Date(each.sentAt).toDateString());
    keyed(
      $("inbox-list"),
      [...days],
      ([date]) => date,
      makeDay,
      (section, [, mine]) => {
        // Yesterday was today until midnight.
        section.querySelector("h2").textContent = day(new Date(mine[0].sentAt));
        keyed(
          section.querySelector("ul"),
          mine,
          (each) => each.messageId,
          (each) => unfolding(each, arrived.has(each.messageId)),
        );
      },
    );
  },
  empty: () =>
    kind
      ? ["Nothing of this kind", "Nothing like it was sent in the last 30 days."]
      : ["Nothing yet", "What is ordered, uploaded and reported is told here."],
  retry: () => poll.now(),
});

const makeDay = () => h("section", h("h2.day"), h("ul.rows"));

function showKinds() {
  const choices = [["", ["All", "inbox"]], ...Object.entries(KINDS)].map(([value, [name, drawing]]) =>
    h(
      "label",
      h("input", { type: "radio", name: "inbox-kind", value, checked: value === kind, onchange: () => choose(value) }),
      h("span", icon(drawing), name),
    ),
  );
  $("inbox-kinds").append(...choices);
}

function choose(value) {
  kind = value;
  list.reset();
  poll.now();
}

showKinds();

export const inbox = {
  open: () => poll.start(),
  close: () => poll.stop(),
};
