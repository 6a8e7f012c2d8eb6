/** Shows the Uploads tab, where users send CSV files to S3 and see all uploads. */
import { ApiError, apiError, get, post } from "./api.js";
import { $, announce, button, h, icon, isChanged, keyed, put } from "./dom.js";
import { reportAnswer, reportLost, untilConnected } from "./connection.js";
import { MINUTE, number, now, size, time } from "./format.js";
import { Listing } from "./listing.js";
import { about, askUndo, badge, canUndo, isMoving, notice, preview } from "./preview.js";

const SECONDS = 15;
const SECONDS_MOVING = 2;
// If the bucket cannot be reached but the API can, the page tries this many times to send a file.
const TRIES = 5;

const EXAMPLE = `supplier_name,type,product_name,price,description,quantity
Café Altura,Arabica,Geisha La Palma,42.00,Jasmine and bergamot,12
Nordlicht Rösterei,Robusta,Kaapi Royale,18.50,Dark and full,40
`;
$("upload-example").href = `data:text/csv;charset=utf-8,${encodeURIComponent(EXAMPLE)}`;

// --- Sending

// Holds the files to send, newest first, as `{ id, file, isOnly, step, sent, uploadId, error, since }`.
// A `step` is asking, sending, waiting or failed. A file leaves when the list of uploads shows it.
let sendings = [];
let lastId = 0;
let queue = Promise.resolve();

const input = $("upload-file");
const drop = $("drop");

function choose(files) {
  const isOnly = files.length === 1;
  const chosen = [...files].map((file) => ({ id: (lastId += 1), file, isOnly, step: "asking", sent: 0 }));
  sendings = [...chosen, ...sendings];
  showSendings();
  // Files are sent one after another, because a single upload can use all the bandwidth.
  for (const sending of chosen) queue = queue.then(() => send(sending));
}

async function send(sending) {
  sending.step = "asking";
  try {
    if (!sending.file.size) throw new ApiError(400, "The file is empty.");
    let place = await signed(sending.file);
    for (let tries = 1; ; tries += 1) {
      sending.uploadId = place.uploadId;
      sending.step = "sending";
      try {
        await transfer(sending, place);
        break;
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        if (tries === TRIES) throw new ApiError(0, "S3 cannot be reached. Check the network, and try again.");
        reportLost();
        sending.step = "asking";
        showSendings();
        await untilConnected();
        // Until it expires, the signed form can be reused.
        if (Date.parse(place.expiresAt) < now() + MINUTE) place = await signed(sending.file);
      }
    }
    sending.step = "waiting";
    sending.since = now();
    announce(`${sending.file.name} was uploaded. It is being read.`);
    if (sending.isOnly && location.hash === "#uploads" && !document.querySelector("dialog[open]"))
      location.hash = `#uploads/${sending.uploadId}`;
    else list.now();
  } catch (error) {
    sending.error = apiError(error);
    sending.step = "failed";
    announce(`${sending.file.name}: ${error.message}`);
  }
  showSendings();
}

/** Requests a signed upload form. This is safe to repeat, because an unused form has no effect. */
const signed = (file) => post("uploads", { filename: file.name, size: file.size, preview: true }, { again: true });

/** Sends the file with XMLHttpRequest to track the progress. Throws a TypeError if S3 does not respond. */
function transfer(sending, { url, fields }) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  // The file must be the last field, because S3 ignores all fields after it.
  body.append("file", sending.file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = ({ loaded, total }) => {
      sending.sent = loaded / total;
      showSendings();
    };
    request.onload = () => {
      reportAnswer();
      if (request.status < 300) resolve();
      else reject(new ApiError(request.status, refusal(request)));
    };
    request.onerror = () => reject(new TypeError("no response"));
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
      h("b", file.name),
      h("span.soft", size(file.size)),
      h("span.step-text"),
      h("progress", { max: 1, "aria-label": `Uploading ${file.name}` }),
      h("div.outcome"),
    ),
  );

function updateSending(element, sending) {
  const { step, sent, error, since, uploadId } = sending;
  const late = now() - since > MINUTE;
  const isFailed = step === "failed";
  const text = {
    asking: "Waiting for upload …",
    sending: sent < 1 ? `Uploading, ${number(Math.floor(sent * 100))} % …` : "Uploaded, waiting for S3 to confirm …",
    waiting: late ? "S3 takes longer than usual to announce the file." : "Uploaded. The file is being read …",
    failed: error?.message,
  }[step];
  const [words, progress, outcome] = [".step-text", "progress", ".outcome"].map((part) => element.querySelector(part));
  words.textContent = text;
  words.classList.toggle("problem", isFailed);
  progress.hidden = isFailed;
  if (step === "waiting") progress.removeAttribute("value");
  else progress.value = sent;
  if (!isChanged(outcome, step)) return;
  if (step === "waiting") put(outcome, h("a", { href: `#uploads/${uploadId}` }, "Open the preview"));
  // Status 400 means that the file is invalid, so a retry would not help.
  else if (isFailed && error.status !== 400)
    put(
      outcome,
      button("Try again", () => send(sending)),
    );
  else put(outcome);
}

input.onchange = () => {
  choose(input.files);
  // If the input is not cleared, choosing the same file again fires no change event.
  input.value = "";
};

function drag(event) {
  const { type, target, dataTransfer } = event;
  if (!dataTransfer.types.includes("Files")) return;
  // By default, the browser would open a file that is dropped outside the drop area, and leave the page.
  event.preventDefault();
  const isInside = drop.contains(target);
  dataTransfer.dropEffect = isInside ? "copy" : "none";
  drop.classList.toggle("over", isInside && type === "dragover");
  if (isInside && type === "drop") choose(dataTransfer.files);
}

for (const type of ["dragover", "dragleave", "drop"]) addEventListener(type, drag);

// --- List

const list = new Listing({
  what: "uploads",
  id: "uploads-list",
  key: (each) => each.uploadId,
  load: async (parameters, signal) => {
    const { uploads, next } = await get("uploads", { limit: 25, ...parameters }, signal);
    return { items: uploads, next };
  },
  make: makeUpload,
  update: updateUpload,
  empty: () => ["No uploads", "No file was uploaded in the last 90 days."],
  seconds: () =>
    list.items.some(isMoving) || sendings.some((each) => each.step === "waiting") ? SECONDS_MOVING : SECONDS,
  refreshed() {
    const listed = new Set(list.items.map((each) => each.uploadId));
    sendings = sendings.filter((each) => each.step !== "waiting" || !listed.has(each.uploadId));
    showSendings();
    list.items.forEach(notice);
  },
});

function makeUpload({ uploadId, filename, uploadedBy, uploadedAt }) {
  const link = h("a.whole", { href: `#uploads/${uploadId}` }, h("b", filename));
  const undo = () => askUndo({ uploadId, filename }, link, () => list.now());
  return h(
    "li.row",
    icon("upload"),
    h("div", link, h("span.status"), h("span.soft.reason")),
    h("p.act", h("button", { "aria-label": `Undo ${filename}`, onclick: undo }, icon("undo"), "Undo")),
    h("p.who", uploadedBy ? h("bdi", `by ${uploadedBy}`) : "put straight into S3"),
    h("p.when", time(uploadedAt)),
  );
}

function updateUpload(element, upload) {
  if (!isChanged(element, JSON.stringify(upload))) return;
  put(element.querySelector(".status"), badge(upload));
  element.querySelector(".reason").textContent = about(upload);
  element.querySelector(".act").hidden = !canUndo(upload);
}

export const uploads = {
  needs: "managers",
  open(uploadId = null) {
    $("uploads-all").hidden = Boolean(uploadId);
    $("upload").hidden = !uploadId;
    if (uploadId) {
      list.stop();
      preview.open(
        uploadId,
        list.items.find((each) => each.uploadId === uploadId),
      );
    } else {
      preview.close();
      list.start();
    }
  },
  close() {
    list.stop();
    preview.close();
  },
};
