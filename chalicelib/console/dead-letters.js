/** Shows the Dead letters tab. The tab lists failed messages and sends them back to be processed again. */
import { ApiError, get, post } from "./api.js";
import { $, h, icon, keyed, openDialog } from "./dom.js";
import { counted, inZone, number, time } from "./format.js";
import { empty, loaded } from "./listing.js";
import { Poll } from "./poll.js";

// The tab refreshes slowly, because reading a queue briefly hides its messages from other readers.
const SECONDS = 30;

const KINDS = {
  order: ["Order", "cup"],
  announcement: ["Announcement", "cup"],
  stream: ["Announcements", "cup"],
  upload: ["Upload", "upload"],
  notification: ["Notification", "inbox"],
  alarm: ["Alarm", "alarm"],
  report: ["Report", "report"],
  unknown: ["Unknown", "other"],
};

let shown = null;
// Maps the id of a dead letter to the reason why it could not be put back.
const failures = new Map();

const poll = new Poll(async (signal) => {
  const state = $("dead-letters-state");
  const place = { state, what: "dead letters", isVisible: shown !== null, retry: () => poll.now(), signal };
  shown = await loaded(place, () => get("dead-letters", { limit: 100 }, signal));
  show(shown);
  return SECONDS;
});

function show({ deadLetters, total }) {
  if (total) $("dead-letters-state").replaceChildren();
  else empty($("dead-letters-state"), "No dead letters", "All messages were processed.");
  $("dead-letters-about").textContent =
    total > deadLetters.length
      ? `The ${number(deadLetters.length)} oldest of about ${number(total)}.`
      : total
        ? `${counted(total, "dead letter")}, the oldest first.`
        : "";
  $("redrive-all").hidden = !total;
  keyed($("dead-letters-list"), deadLetters, (letter) => letter.id, makeLetter, updateLetter);
}

function makeLetter(letter) {
  const [kind, drawing] = KINDS[letter.kind] ?? KINDS.unknown;
  return h(
    "li.row",
    icon(drawing),
    h(
      "div",
      h("p", h("span.badge", kind), " ", h("b", inZone(letter.what))),
      h("p.problem", inZone(letter.why)),
      h(
        "p.hint",
        "since ",
        time(letter.since),
        letter.tries === null ? "" : `, after ${counted(letter.tries, "try", "tries")}`,
      ),
      h("p.problem.redrive-problem", { hidden: true }),
    ),
    h(
      "p.act",
      h("button", { type: "button", "aria-label": `Put back: ${letter.what}`, onclick: () => ask(letter) }, "Put back"),
    ),
  );
}

function updateLetter(element, letter) {
  const note = element.querySelector(".redrive-problem");
  note.hidden = !failures.has(letter.id);
  note.textContent = failures.has(letter.id) ? `It could not be put back: ${failures.get(letter.id)}` : "";
}

// --- Redrive ---------------------------------------------------------------------------------------------------------

const dialog = $("redrive");
// Holds the dead letter to put back, or null to put back all dead letters.
let asked = null;

function ask(letter) {
  asked = letter;
  $("redrive-title").textContent = letter ? "Put it back?" : `Put all ${number(shown.total)} back?`;
  $("redrive-about").textContent = letter
    ? `${letter.what}: it goes back to its source and is processed again.`
    : "They go back to their sources and are processed again. A message that fails again returns to this list.";
  openDialog(dialog);
}

async function redrive() {
  const letter = asked;
  dialog.close();
  const outcome = $("redrive-outcome");
  const buttons = [$("redrive-all"), ...$("dead-letters-list").querySelectorAll("button")];
  buttons.forEach((button) => (button.disabled = true));
  outcome.replaceChildren(h("p.callout.going", "Putting back …"), h("progress", { "aria-label": "Putting back" }));
  try {
    const answer = await post("dead-letters/redrive", letter ? { ids: [letter.id] } : {});
    for (const { id, why } of answer.kept) failures.set(id, why);
    const words = [
      `${counted(answer.redriven, "dead letter")} put back`,
      answer.kept.length && `${number(answer.kept.length)} failed`,
      answer.left && `${number(answer.left)} left`,
    ];
    outcome.replaceChildren(
      h(`p.callout.${answer.kept.length ? "bad" : "good"}`, `${words.filter(Boolean).join(", ")}.`),
    );
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const words = error.status ? error.message : `${error.message} The messages in the list below were not put back.`;
    outcome.replaceChildren(h("p.callout.bad", words));
  }
  buttons.forEach((button) => (button.disabled = false));
  $("dead-letters-title").focus();
  poll.now();
}

$("redrive-all").addEventListener("click", () => ask(null));
$("redrive-yes").addEventListener("click", redrive);

export const deadLetters = {
  needs: "managers",
  open() {
    $("redrive-outcome").replaceChildren();
    poll.start();
  },
  close: () => poll.stop(),
};
