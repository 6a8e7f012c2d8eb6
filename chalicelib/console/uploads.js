/** Shows the Uploads tab, which sends CSV files to S3 and shows the result of each import. */
import { ApiError, post } from "./api.js";
import { $, announce, button, h, icon, keyed } from "./dom.js";
import { reportAnswer, reportLost, untilConnected } from "./connection.js";
import { counted, number, now, size } from "./format.js";
import { message, notifications, unfolding } from "./inbox.js";
import { Listing } from "./listing.js";
import { Poll } from "./poll.js";

const SECONDS = 15;
const SECONDS_WATCHED = 2;
const LONG = 60_000;
// If the API can be reached but the bucket cannot, sending a file is attempted this many times.
const TRIES = 5;

const EXAMPLE = `supplier_name,type,product_name,price,description,quantity
Café Altura,Arabica,Geisha La Palma,42.00,Jasmine and bergamot,12
Nordlicht Rösterei,Robusta,Kaapi Royale,18.50,Dark and full,40
`;
$("upload-example").href = `data:text/csv;charset=utf-8,${encodeURIComponent(EXAMPLE)}`;

// --- Sending ---------------------------------------------------------------------------------------------------------

// Holds the uploads, newest first, as `{ id, file, step, sent, key, problem, canRetry, notification, since }`.
// An upload's `step` is asking, sending, waiting, done or failed.
let sendings = [];
let lastId = 0;
let queue = Promise.resolve();

const input = $("upload-file");
const drop = $("drop");

function choose(files) {
  const chosen = [...files].map((file) => ({
    id: (lastId += 1),
    file,
    step: "asking",
    sent: 0,
    key: null,
    problem: "",
    canRetry: false,
    notification: null,
    since: 0,
  }));
  sendings = [...chosen, ...sendings];
  showSendings();
  // Files are sent one after another, because a single upload can use all the bandwidth.
  for (const sending of chosen) queue = queue.then(() => send(sending));
}

async function send(sending) {
  sending.step = "asking";
  sending.problem = "";
  try {
    if (!sending.file.size) throw new ApiError(400, "The file is empty.");
    let place = await signed(sending.file);
    for (let tries = 1; ; tries += 1) {
      sending.key = place.key;
      sending.step = "sending";
      try {
        await transfer(sending, place);
        break;
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        if (tries === TRIES) throw new ApiError(0, "S3 cannot be reached. Check the network, and try again.");
        // The upload waits until the connection is back. The signed form can be reused for the same object key.
        reportLost();
        sending.step = "asking";
        showSendings();
        await untilConnected();
        if (Date.parse(place.expiresAt) < now() + 60_000) place = await signed(sending.file);
      }
    }
    sending.step = "waiting";
    sending.since = now();
    announce(`${sending.file.name} was uploaded. The import has started.`);
    watch.start();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    sending.step = "failed";
    // Status 400 means that the file is invalid, so a retry would not help.
    sending.canRetry = error.status !== 400;
    sending.problem = error.message;
    announce(`${sending.file.name}: ${sending.problem}`);
  }
  showSendings();
}

/** Requests a signed upload form. Repeating this request is safe, because an unused form has no effect. */
const signed = (file) => post("uploads", { filename: file.name, size: file.size }, { again: true });

/** Sends the file with XMLHttpRequest, which reports progress. Throws a TypeError if S3 does not respond. */
function transfer(sending, { url, fields }) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  // The file must be the last field, because S3 ignores all fields after it.
  body.append("file", sending.file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      sending.sent = loaded / total;
      showSendings();
    });
    request.addEventListener("load", () => {
      reportAnswer();
      if (request.status < 300) resolve();
      else reject(new ApiError(request.status, refusal(request)));
    });
    request.addEventListener("error", () => reject(new TypeError("no response")));
    request.open("POST", url);
    request.send(body);
  });
}

function refusal(request) {
  const code = /<Code>(\w+)<\/Code>/.exec(request.responseText)?.[1];
  const words = {
    EntityTooLarge: "The file is too large. Split it into smaller files, and upload them one by one.",
    EntityTooSmall: "The file is empty. Choose a file with a header and rows.",
    AccessDenied: "The upload form has expired. Try again.",
  };
  return words[code] ?? `S3 refused the file (${code ?? request.status}). Try again.`;
}

function showSendings() {
  $("uploading").hidden = !sendings.length;
  keyed($("uploading-list"), sendings, (each) => each.id, makeSending, updateSending);
}

const makeSending = ({ file }) =>
  h(
    "li.row",
    icon("upload"),
    h(
      "div",
      h("p", h("b", file.name), " ", h("span.soft", size(file.size))),
      h("p.step-text"),
      h("progress", { max: 1, "aria-label": `Uploading ${file.name}` }),
      h("div.outcome"),
    ),
  );

function updateSending(element, sending) {
  const { step, sent, problem, canRetry, notification, since } = sending;
  const late = now() - since > LONG;
  const text = {
    asking: "Waiting for upload …",
    sending: sent < 1 ? `Uploading, ${number(Math.floor(sent * 100))} % …` : "Uploaded, waiting for S3 to confirm …",
    waiting: late
      ? "The import takes longer than usual. Its result will also appear in the inbox."
      : "Uploaded. The rows are being imported …",
    done: "",
    failed: problem,
  }[step];
  element.querySelector(".step-text").textContent = text;
  element.querySelector(".step-text").classList.toggle("problem", step === "failed");
  const progress = element.querySelector("progress");
  progress.hidden = step === "done" || step === "failed";
  if (step === "waiting") progress.removeAttribute("value");
  else progress.value = sent;
  const outcome = element.querySelector(".outcome");
  if (outcome.dataset.step === step) return;
  outcome.dataset.step = step;
  if (step === "done") outcome.replaceChildren(badge(notification.facts), message(notification));
  else if (step === "failed" && canRetry) outcome.replaceChildren(button("Try again", () => send(sending)));
  else outcome.replaceChildren();
}

/** Returns the outcome of an import as a badge, such as `3 rows imported, 2 bad`. */
function badge({ outcome, new: added, updated, unchanged, bad, unusedColumns = [] }) {
  if (outcome !== "imported") return h("p", h("span.badge.bad", "Not imported"));
  const unused = unusedColumns.length ? ", some columns not used" : "";
  const text = `${counted(added + updated + unchanged, "row")} imported, ${number(bad)} bad${unused}`;
  return h("p", h(`span.badge.${bad || unused ? "partly" : "good"}`, text));
}

// Polls until every uploaded file has a notification.
const watch = new Poll(async (signal) => {
  const waiting = sendings.filter((each) => each.step === "waiting");
  if (!waiting.length) return null;
  const { items } = await notifications({ kind: "upload", limit: 50 }, signal);
  for (const sending of waiting) {
    sending.notification = items.find(({ facts }) => facts?.key === sending.key);
    if (!sending.notification) continue;
    sending.step = "done";
    announce(`${sending.file.name}: ${sending.notification.subject}`);
    list.refresh();
  }
  showSendings();
  return SECONDS_WATCHED;
});

input.addEventListener("change", () => {
  choose(input.files);
  // If the input is not cleared, choosing the same file again fires no change event.
  input.value = "";
});

const bringsFiles = (event) => event.dataTransfer.types.includes("Files");
// By default, the browser would open a file that is dropped outside the drop area, and leave the page.
addEventListener("dragover", (event) => {
  if (!bringsFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = drop.contains(event.target) ? "copy" : "none";
  drop.classList.toggle("over", drop.contains(event.target));
});
addEventListener("dragleave", () => drop.classList.remove("over"));
addEventListener("drop", (event) => {
  if (!bringsFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  if (drop.contains(event.target)) choose(event.dataTransfer.files);
});

// --- List ------------------------------------------------------------------------------------------------------------

const list = new Listing({
  what: "uploads",
  state: $("uploads-state"),
  list: $("uploads-list"),
  older: $("uploads-older"),
  key: (each) => each.messageId,
  load: (parameters, signal) => notifications({ kind: "upload", limit: 10, ...parameters }, signal),
  make: unfolding,
  empty: ["No uploads", "No file was uploaded in the last 30 days."],
  seconds: SECONDS,
});

export const uploads = {
  needs: "managers",
  open() {
    list.start();
    watch.start();
  },
  close() {
    list.stop();
    watch.stop();
  },
};
