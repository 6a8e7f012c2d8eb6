/** Shows the dead letters that a person put back or discarded, and what became of them. */
import { $, announce, badge, h, icon, isChanged, keyed, put } from "./dom.js";
import { counted, fileNames, inZone, now, time, visible } from "./format.js";

// Maps each kind of dead letter to its name in the plural and its icon.
export const KINDS = {
  order: ["orders", "cup"],
  announcement: ["announcements", "cup"],
  stream: ["batches of announcements", "cup"],
  upload: ["uploads", "upload"],
  notification: ["notifications", "inbox"],
  alarm: ["alarms", "alarm"],
  report: ["reports", "report"],
  unknown: ["unknown messages", "other"],
};

// Maps each state to the label and the CSS class of its badge.
const STATES = {
  ON_ITS_WAY: ["On its way", "going"],
  DONE: ["Done", "good"],
  FAILED_AGAIN: ["Failed again", "bad"],
  DISCARDED: ["Discarded", "plain"],
  UNKNOWN: ["Outcome unknown", "plain"],
};
// Maps each state that needs an explanation to a sentence.
const FATES = {
  FAILED_AGAIN: "It is back in the list above, with its new reason.",
  REPORT_FAILED: "The report has failed. The list of reports shows why.",
  UNKNOWN: "It was put back more than a day ago, and nothing shows what became of it.",
};
const FASTEST_SECONDS = 2.5;

export const titleOf = ({ kind, what }) => inZone(kind === "upload" ? fileNames(what) : what);
export const iconOf = ({ kind }) => (KINDS[kind] ?? KINDS.unknown)[1];
const keyOf = ({ letter, at }) => `${letter} ${at}`;
const styled = (state) => STATES[state] ?? STATES.UNKNOWN;
const nameOf = (state) => styled(state)[0];
const isMoving = ({ state }) => state === "ON_ITS_WAY";

/** Returns the content of a message as text in a box that scrolls. */
export const messageOf = (letter) => [
  h("pre.text", { tabindex: 0, role: "group", "aria-label": `Text of ${titleOf(letter)}` }, visible(letter.content)),
  letter.content.endsWith("…") && h("p.hint", "The message is longer. This is its beginning."),
];

export function unfoldingMessage(letter, ...before) {
  const summary = h("summary", "Show the message", h("span.unseen", ` of ${titleOf(letter)}`));
  return h("details", summary, before, messageOf(letter));
}

// The handled letters that were last read, and the keys of those that were on their way.
let shown = [];
let moving = new Set();

/** Shows the handled letters. If `handled` is null, shows that they cannot be read. */
export function showHandled(handled) {
  $("handled-about").textContent = handled
    ? "Put back or discarded in the last 30 days, the newest first."
    : "What became of them cannot be read at the moment.";
  shown = handled ?? shown;
  $("handled").hidden = handled?.length === 0;
  keyed($("handled-list"), shown, keyOf, makeHandled, update);
  const arrived = shown.filter((each) => moving.has(keyOf(each)) && !isMoving(each));
  moving = new Set(shown.filter(isMoving).map(keyOf));
  const words = arrived.length === 1 ? [`${titleOf(arrived[0])}: ${nameOf(arrived[0].state)}`] : countStates(arrived);
  if (words.length) announce(words.join(", "));
}

/** Returns the seconds until the next refresh. The longer the messages are on their way, the longer the pause. */
export function secondsUntilNews() {
  const ages = shown.filter(isMoving).map(({ at }) => (now() - Date.parse(at)) / 1000);
  return Math.max(FASTEST_SECONDS, Math.min(...ages) / 20);
}

const countStates = (letters) =>
  [...Map.groupBy(letters, ({ state }) => state)].map(([state, { length }]) => `${length} × ${nameOf(state)}`);

function makeHandled(each) {
  const { why, tries, by, at, state } = each;
  const reason = [inZone(why), tries === null ? "" : ` (${counted(tries, "try", "tries")})`];
  const message = unfoldingMessage(each, h("p.soft", "It had failed: ", reason));
  return h(
    "li.row",
    icon(iconOf(each)),
    h("div", h("b", titleOf(each)), h("span.status"), h("span.fate.soft"), message),
    h("p.who", state === "DISCARDED" ? "discarded" : "put back", by ? [" by ", h("bdi", by)] : ""),
    h("p.when", time(at)),
  );
}

function update(element, { kind, state }) {
  if (!isChanged(element, state)) return;
  const [name, style] = styled(state);
  put(element.querySelector(".status"), badge(style, name));
  element.querySelector(".fate").textContent =
    FATES[kind === "report" && state === "FAILED_AGAIN" ? "REPORT_FAILED" : state] ?? "";
}
