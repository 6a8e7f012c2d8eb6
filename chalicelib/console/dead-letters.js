/** Shows the Dead letters tab. The tab lists failed messages, puts them back to be processed again, or discards them. */
import { ApiError, get, post } from "./api.js";
import { countLetters } from "./counts.js";
import { $, choice, h, icon, keyed, openDialog } from "./dom.js";
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

const state = $("dead-letters-state");
const poll = new Poll(async (signal, retry) => {
  const place = { state, what: "dead letters", isVisible: shown !== null, retry, signal };
  shown = await loaded(place, () => get("dead-letters", { limit: 100 }, signal));
  show(shown);
  showHandled(shown.handled);
  return Math.min(SECONDS, secondsUntilNews());
});

function show({ deadLetters, total }) {
  const counts = Map.groupBy(deadLetters, (letter) => (letter.kind in KINDS ? letter.kind : "unknown"));
  if (!counts.has(kind)) kind = "";
  showKinds(counts, deadLetters.length);
  const listed = kind ? counts.get(kind) : deadLetters;
  countLetters(total);
  if (!total) empty(state, "No dead letters", "Nothing waits for a person.");
  const isCut = total > deadLetters.length;
  const amount = kind || isCut ? listed.length : total;
  const whole = amount ? `${counted(amount, "dead letter")}${amount > 1 ? ", the oldest first" : ""}.` : "";
  $("dead-letters-about").textContent = isCut ? `The ${number(amount)} oldest of about ${number(total)}.` : whole;
  $("redrive-all").hidden = !total;
  $("redrive-all").textContent = kind ? `Put all ${KINDS[kind][0]} back` : "Put all back";
  keyed($("dead-letters-list"), listed, (letter) => letter.id, makeLetter, updateLetter);
}

function showKinds(counts, all) {
  $("dead-letters-kinds").hidden = counts.size < 2;
  const names = ["", ...Object.keys(KINDS).filter((name) => counts.has(name))];
  keyed($("dead-letters-chips"), names, String, makeChip, (chip, name) => {
    chip.firstElementChild.checked = name === kind;
    chip.querySelector("bdi").textContent = number(name ? counts.get(name).length : all);
  });
}

function makeChip(name) {
  const [many, drawing] = name ? KINDS[name] : ["all", "letter"];
  const choose = () => {
    kind = name;
    show(shown);
  };
  const properties = { name: "dead-letters-kind", value: name, onchange: choose };
  return choice(properties, icon(drawing), h("span.kind", many), " ", h("bdi.soft"));
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
const [redriveDialog, discardDialog, outcome] = ["redrive", "discard", "redrive-outcome"].map($);

/** Opens a dialog. Until the dialog closes, the tab reads no queue, so the request finds all messages visible. */
function ask(dialog) {
  poll.stop();
  outcome.replaceChildren();
  openDialog(dialog);
}

function resume() {
  if (isOpen && !isWorking) poll.start();
}

/** Sends a request about dead letters. A request that finds none of its `ids` is repeated once. */
async function send(path, body) {
  const isEmpty = ({ redriven, discarded, kept }) => !redriven && !discarded && !kept?.length;
  const answer = await post(path, body);
  if (!body.ids || !isEmpty(answer)) return answer;
  await new Promise((resolve) => setTimeout(resolve, HIDDEN_MILLISECONDS));
  return post(path, body);
}

const NOT_FOUND = "This dead letter was not found. Another person may have put it back or discarded it.";

/** Shows the outcome of a request above the list. */
function tell(isGood, words) {
  outcome.replaceChildren(h(`p.callout.${isGood ? "good" : "bad"}`, words));
  $("dead-letters-title").focus();
}

// --- Redrive

// Holds the dead letter to put back, or null to put back all dead letters of the chosen kind.
let asked = null;

function askRedrive(letter) {
  asked = letter;
  const all = kind ? `all ${KINDS[kind][0]}` : `all ${number(shown.total)}`;
  $("redrive-title").textContent = letter ? "Put it back?" : `Put ${all} back?`;
  const about = letter
    ? [h("b", titleOf(letter)), ": it goes back to its source and is processed again."]
    : ["They go back to their sources and are processed again. A message that fails again returns to this list."];
  $("redrive-about").replaceChildren(...about);
  ask(redriveDialog);
}

async function redrive() {
  const letter = asked;
  isWorking = true;
  redriveDialog.close();
  const buttons = document.querySelectorAll("#redrive-all, #dead-letters-list button");
  buttons.forEach((button) => (button.disabled = true));
  outcome.replaceChildren(h("p.callout", "Putting back …"), h("progress", { "aria-label": "Putting back" }));
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
    if (!(error instanceof ApiError)) throw error;
    tell(false, error.status ? error.message : `${error.message} The messages in the list below were not put back.`);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
    isWorking = false;
    resume();
  }
}

// --- Discard

let doomed = null;

function askDiscard(letter) {
  doomed = letter;
  $("discard-about").replaceChildren(
    h("b", titleOf(letter)),
    " is deleted and will never be processed. Its text stays readable on this page for 30 days.",
  );
  $("discard-text").replaceChildren(...messageOf(letter).filter(Boolean));
  $("discard-problem").textContent = "";
  ask(discardDialog);
}

async function discard({ currentTarget: yes }) {
  if (yes.ariaBusy === "true") return;
  yes.ariaBusy = "true";
  const { id } = doomed;
  $("discard-problem").textContent = "";
  let problem = NOT_FOUND;
  try {
    const { discarded, kept } = await send("dead-letters/discard", { ids: [id] });
    if (kept?.length) problem = `It could not be discarded: ${kept[0].why}`;
    else if (discarded) problem = "";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    problem = error.message;
  } finally {
    yes.ariaBusy = "false";
  }
  $("discard-problem").textContent = problem;
  if (problem) return;
  discardDialog.close();
  tell(true, '1 dead letter discarded. Its text is under "Handled" for 30 days.');
}

redriveDialog.addEventListener("close", resume);
discardDialog.addEventListener("close", resume);
$("redrive-all").addEventListener("click", () => askRedrive(null));
$("redrive-yes").addEventListener("click", redrive);
$("discard-yes").addEventListener("click", discard);

export const deadLetters = {
  needs: "managers",
  open() {
    isOpen = true;
    outcome.replaceChildren();
    poll.start();
  },
  close() {
    isOpen = false;
    poll.stop();
    redriveDialog.close();
    discardDialog.close();
  },
};
