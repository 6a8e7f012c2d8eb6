/** Shows the Dead letters tab. The tab lists failed messages, puts them back to be processed again, or discards them. */
import { ApiError, apiError, get, post } from "./api.js";
import { ask } from "./ask.js";
import { pause } from "./connection.js";
import { countLetters } from "./counts.js";
import { $, addChips, h, icon, keyed, put } from "./dom.js";
import { counted, inZone, number, time } from "./format.js";
import { iconOf, KINDS, messageOf, secondsUntilNews, showHandled, titleOf, unfoldingMessage } from "./handled.js";
import { empty, loaded, Poll } from "./listing.js";

// The tab usually refreshes slowly, because reading a queue briefly hides its messages from other readers.
const SECONDS = 30;
// A message that another reader is reading becomes visible again within this time.
const HIDDEN_MILLISECONDS = 2_500;

let shown = null;
// Holds the kind of dead letter that the list shows, or an empty string for all kinds.
let kind = "";
const NOT_PUT_BACK = "It could not be put back: ";
// Maps the id of a dead letter to the reason why it could not be put back.
const failures = new Map();

const poll = new Poll(async (signal, retry) => {
  const place = { id: "dead-letters", isVisible: shown, retry, signal };
  shown = await loaded(place, () => get("dead-letters", { limit: 100 }, signal));
  show(shown);
  showHandled(shown.handled);
  return Math.min(SECONDS, secondsUntilNews());
});

function show({ deadLetters, total }) {
  const counts = Map.groupBy(deadLetters, (letter) => (letter.kind in KINDS ? letter.kind : "unknown"));
  if (!counts.has(kind)) kind = "";
  showKinds(counts, deadLetters);
  const listed = kind ? counts.get(kind) : deadLetters;
  countLetters(total);
  if (!total) empty($("dead-letters-state"), "No dead letters", "Nothing waits for a person.");
  const isCut = total > deadLetters.length;
  const amount = kind || isCut ? listed.length : total;
  const whole = amount ? `${counted(amount, "dead letter")}${amount > 1 ? ", the oldest first" : ""}.` : "";
  $("dead-letters-about").textContent = isCut ? `The ${number(amount)} oldest of about ${number(total)}.` : whole;
  $("redrive-all").hidden = !total;
  $("redrive-all").textContent = kind ? `Put all ${KINDS[kind][0]} back` : "Put all back";
  keyed($("dead-letters-list"), listed, (letter) => letter.id, makeLetter, updateLetter);
}

addChips("dead-letters-kinds", { "": ["all", "letter"], ...KINDS }, (chosen) => {
  kind = chosen;
  show(shown);
});

function showKinds(counts, all) {
  $("dead-letters-kinds").hidden = counts.size < 2;
  for (const chip of $("dead-letters-kinds").elements) {
    const letters = chip.value ? counts.get(chip.value) : all;
    chip.parentElement.hidden = !letters;
    chip.checked = chip.value === kind;
    chip.parentElement.querySelector("bdi").textContent = ` ${number(letters?.length ?? 0)}`;
  }
}

function makeLetter(letter) {
  const { why, since, tries } = letter;
  const act = (verb, ask, style = "") =>
    h(`button${style}`, { "aria-label": `${verb}: ${titleOf(letter)}`, onclick: () => ask(letter) }, verb);
  return h(
    "li.row.bad",
    icon(iconOf(letter)),
    h(
      "div",
      h("b", titleOf(letter)),
      h("span.problem.reason", inZone(why)),
      unfoldingMessage(letter),
      h("p.problem.redrive-problem"),
    ),
    h("p.act.buttons", act("Put back", askRedrive), act("Discard", askDiscard, ".quiet.low")),
    h("p.who", tries === null ? "" : counted(tries, "try", "tries")),
    h("p.when", time(since)),
  );
}

function updateLetter(element, letter) {
  const why = failures.get(letter.id);
  element.querySelector(".redrive-problem").textContent = why ? NOT_PUT_BACK + why : "";
}

// --- Requests

let isOpen = false;
let isWorking = false;
const outcome = $("redrive-outcome");

/** Asks first. Polling stops until the dialog closes, because it would hide messages from the request. */
function askFirst(question) {
  poll.stop();
  put(outcome);
  ask({ ...question, closed: resume });
}

function resume() {
  if (isOpen && !isWorking) poll.start();
}

/** Sends a request about dead letters. A request that finds none of its `ids` is repeated once. */
async function send(path, body) {
  const isEmpty = ({ redriven, discarded, kept }) => !redriven && !discarded && !kept?.length;
  const answer = await post(path, body);
  if (!body.ids || !isEmpty(answer)) return answer;
  await pause(HIDDEN_MILLISECONDS);
  return post(path, body);
}

const NOT_FOUND = "This dead letter was not found. Another person may have put it back or discarded it.";

/** Shows the outcome of a request above the list. */
function tell(isGood, words) {
  put(outcome, h(`p.callout.${isGood ? "good" : "bad"}`, words));
  $("dead-letters-title").focus();
}

// --- Redrive

/** Asks whether to put back `letter`. If it is null, asks about all dead letters of the chosen kind. */
function askRedrive(letter) {
  const all = kind ? `all ${KINDS[kind][0]}` : `all ${number(shown.total)}`;
  askFirst({
    title: letter ? "Put it back?" : `Put ${all} back?`,
    about: letter
      ? [h("b", titleOf(letter)), ": it goes back to its source and is processed again."]
      : ["They go back to their sources and are processed again. A message that fails again returns to this list."],
    yes: "Put back",
    done: () => redrive(letter),
  });
}

async function redrive(letter) {
  isWorking = true;
  const buttons = document.querySelectorAll("#redrive-all, #dead-letters-list button");
  buttons.forEach((button) => (button.disabled = true));
  put(outcome, h("p.callout", "Putting back …"), h("progress", { "aria-label": "Putting back" }));
  try {
    const answer = await send("dead-letters/redrive", letter ? { ids: [letter.id] } : kind ? { kind } : {});
    for (const { id, why } of answer.kept) failures.set(id, why);
    const words = [
      `${counted(answer.redriven, "dead letter")} put back`,
      answer.kept.length && `${number(answer.kept.length)} failed`,
      answer.left && `${number(answer.left)} left`,
    ];
    const next = answer.redriven ? ' What becomes of it is under "Handled".' : "";
    if (letter && !answer.redriven) tell(false, answer.kept[0] ? NOT_PUT_BACK + answer.kept[0].why : NOT_FOUND);
    else tell(!answer.kept.length, `${words.filter(Boolean).join(", ")}.${next}`);
  } catch (error) {
    tell(
      false,
      apiError(error).status ? error.message : `${error.message} The messages in the list below were not put back.`,
    );
  } finally {
    buttons.forEach((button) => (button.disabled = false));
    isWorking = false;
    resume();
  }
}

// --- Discard

function askDiscard(letter) {
  askFirst({
    title: "Discard it?",
    about: [
      h("b", titleOf(letter)),
      " is deleted and will never be processed. Its text stays readable on this page for 30 days.",
    ],
    text: messageOf(letter),
    yes: "Discard",
    isDangerous: true,
    work: () => discard(letter),
    done: () => tell(true, '1 dead letter discarded. Its text is under "Handled" for 30 days.'),
  });
}

async function discard({ id }) {
  const { discarded, kept } = await send("dead-letters/discard", { ids: [id] });
  if (kept?.length) throw new ApiError(0, `It could not be discarded: ${kept[0].why}`);
  if (!discarded) throw new ApiError(0, NOT_FOUND);
}

$("redrive-all").onclick = () => askRedrive(null);

export const deadLetters = {
  needs: "managers",
  open() {
    isOpen = true;
    put(outcome);
    poll.start();
  },
  close() {
    isOpen = false;
    poll.stop();
  },
};
