/** Shows the Inbox tab with notifications. The Today tab also uses this module. */
import { get } from "./api.js";
import { ICONS, addChips, announce, h, icon, link, meta } from "./dom.js";
import { fileNames, inZone, now, time } from "./format.js";
import { keep, recall } from "./kept.js";
import { Listing } from "./listing.js";
import { person } from "./sign-in.js";

const SECONDS = 10;

const KINDS = {
  report: ["Reports", "report"],
  order: ["Orders", "cup"],
  upload: ["Uploads", "upload"],
  storage: ["Storage", "storage"],
  alarm: ["Alarms", "alarm"],
  other: ["Others", "other"],
};

// Maps the state of an alarm to the words before its name and to the words before its meaning.
const ALARM_STATES = {
  ALARM: ["Alarm", ""],
  OK: ["OK", "This is no longer the case: "],
  INSUFFICIENT_DATA: ["No data", "CloudWatch has no data about this: "],
};

/** Returns a notification with file names in place of S3 keys, and sentences in place of JSON from AWS. */
function readable(notification) {
  const { kind, subject, message: text } = notification;
  // The first line of an upload's message repeats the S3 key.
  if (kind === "upload")
    return { ...notification, subject: fileNames(subject), about: text.slice(text.indexOf("\n") + 1) };
  if (kind !== "alarm") return notification;
  let alarm;
  try {
    alarm = JSON.parse(text);
  } catch {
    // The message is a sentence already.
    return notification;
  }
  if (typeof alarm === "string") return { ...notification, message: alarm };
  const { AlarmName: name, AlarmDescription: about, NewStateValue: state, NewStateReason: reason } = alarm ?? {};
  if (typeof name !== "string" || !Object.hasOwn(ALARM_STATES, state)) return notification;
  const [title, before] = ALARM_STATES[state];
  const [means, runbook] = `${about ?? ""}`.split(" Runbook: ");
  const lines = [
    means && before + means,
    runbook && state === "ALARM" && `What to do: see "${runbook}" in the runbook.`,
    reason && `CloudWatch: ${reason}`,
  ];
  return {
    ...notification,
    isOk: state === "OK",
    subject: `${title}: ${name.replace(`cafe-${meta("stage")}-`, "")}`,
    message: lines.filter(Boolean).join("\n"),
  };
}

/** Returns a page of notifications. Skips up to four empty pages, because a filtered page may be empty. */
export async function notifications(parameters, signal) {
  const items = [];
  let { next } = parameters;
  for (let asked = 0; asked < 5 && !items.length && next !== null; asked += 1) {
    const page = await get("notifications", { ...parameters, next }, signal);
    items.push(...page.notifications.map(readable));
    next = page.next;
  }
  return { items, next };
}

const TONES = { failed: "bad", notImported: "bad", conflict: "bad", succeeded: "good", imported: "good" };

/** Returns `bad` for an alarm or a failure, `good` for a success, or an empty string. */
export const toneOf = ({ kind, isOk, facts }) =>
  kind === "alarm" ? (isOk ? "good" : "bad") : (TONES[facts?.outcome] ?? "");

function kindOf(notification) {
  const [name, drawing] = KINDS[notification.kind] ?? KINDS.other;
  return [name, ICONS[toneOf(notification)] ?? drawing];
}

// The tab marks messages that were sent after this time.
let marked = "";

/** Returns when this person last looked at the inbox in this browser. Older messages count as read. */
const lookedAt = () => recall(`looked-${person()?.name}`, "localStorage") ?? look(new Date(now()).toISOString());

function look(at) {
  keep(`looked-${person()?.name}`, at, "localStorage");
  return at;
}

export const isUnread = ({ sentAt }) => sentAt > lookedAt();

/** Each line of a message becomes a paragraph, or a list item if it starts with a dash. */
function message({ message: text, facts = {} }) {
  const links = linksOf(facts);
  const parts = h("div.message");
  for (const line of inZone(text).split("\n")) {
    if (!line.startsWith("- ")) parts.append(h("p", linked(line, links)));
    else {
      if (parts.lastChild?.tagName !== "UL") parts.append(h(facts.bad ? "ul.bad" : "ul"));
      parts.lastChild.append(h("li", linked(line.slice(2), links)));
    }
  }
  return parts;
}

/** Maps each id in the facts of a notification to its link. Old notifications have no facts. */
function linksOf({ kind, id, orderIDs = [], changes = [] }) {
  const ids = [...orderIDs, ...changes.map(([orderID]) => orderID)];
  const links = new Map(ids.map((orderID) => [orderID, `#orders/${orderID}`]));
  // A report of the other kind may have the same id, unless the id begins with its own kind.
  if (kind === "inventory" || kind === "storage")
    links.set(id, `#reports/${id.startsWith(kind) ? id : `${kind}~${id}`}`);
  return links;
}

// Matches a URL, or a word that may be an id.
const WORDS = /(https?:\/\/\S+|[\w-]+)/i;

/** Replaces the URLs in a line of text, and the ids in `links`, with links. */
function linked(line, links) {
  return line.split(WORDS).map((word) => {
    if (links.has(word)) return h("a", { href: links.get(word) }, word);
    if (!/^https?:/i.test(word) || !URL.canParse(word)) return word;
    if (word.startsWith(`${document.baseURI}#`)) return h("a", { href: new URL(word).hash }, "the report's page");
    // The URL of a report is long and contains a secret, so the text of the link shows only the host name.
    return link(word, `Open it, at ${new URL(word).host}`, icon("out"));
  });
}

export const brief = (notification) =>
  h(
    `li.row.${toneOf(notification)}`,
    icon(kindOf(notification)[1]),
    h("div", titleOf(notification)),
    h("p.when", time(notification.sentAt)),
  );

const titleOf = ({ subject, message: text }) => subject || inZone(text).split("\n")[0].slice(0, 100) || "No text";

function unfolding(notification) {
  const [kind, drawing] = kindOf(notification);
  return h(
    `li.row.${toneOf(notification)}`,
    icon(drawing),
    h(
      "details",
      h(
        "summary",
        h("span.unseen", `${kind}: `),
        h("b", h("span.badge.unread", "New"), " ", titleOf(notification)),
        h("span.soft.preview", inZone(notification.about ?? notification.message).slice(0, 160)),
      ),
      message(notification),
      h("p.hint", "Sent ", time(notification.sentAt, "moment")),
    ),
    h("p.when", time(notification.sentAt)),
  );
}

let kind = "";

const mark = (element, { sentAt }) => (element.querySelector(".unread").hidden = sentAt <= marked);

const list = new Listing({
  what: "messages",
  id: "inbox-list",
  key: (each) => each.messageId,
  load: (parameters, signal) => notifications({ kind, limit: 25, ...parameters }, signal),
  make: unfolding,
  update: mark,
  empty: () =>
    kind
      ? ["Nothing of this kind", "No message of this kind was sent in the last 30 days."]
      : ["Nothing yet", "Orders, uploads and reports are announced here."],
  seconds: () => SECONDS,
  refreshed: (arrived) => {
    // With a filter, newer messages of other kinds are hidden, and stay unread.
    if (!kind && list.items.length) look(list.items[0].sentAt);
    if (arrived.length === 1) announce(`New: ${titleOf(arrived[0])}`);
    else if (arrived.length) announce(`${arrived.length} new messages.`);
  },
});

addChips("inbox-kinds", { "": ["All", "inbox"], ...KINDS }, (chosen) => {
  kind = chosen;
  list.reset();
});

export const inbox = {
  open() {
    marked ||= lookedAt();
    list.start();
  },
  close() {
    marked = "";
    list.stop();
  },
};
