/** Shows one upload: what it would change, its outcome, and the buttons to apply and to undo it. */
import { apiError, get, post } from "./api.js";
import { ask } from "./ask.js";
import { beanName, changeList, changeRow, changes, difference, path } from "./changes.js";
import {
  $,
  announce,
  badge as label,
  button,
  entitle,
  fillOnce,
  h,
  icon,
  part,
  put,
  traceLink,
  whileBusy,
} from "./dom.js";
import { amounts, counted, now, number, size, time } from "./format.js";
import { loaded, Poll } from "./listing.js";

const SECONDS = 15;
const SECONDS_MOVING = 1;
const TOO_LARGE = "cannot be undone, because it changes more than 100,000 beans.";
// The list of uploads names at most this many kept beans.
const KEPT_NAMED = 3;

const STATUS = {
  WAITING: ["going", "Waiting for the file"],
  PREVIEWING: ["going", "Reading"],
  PREVIEWED: ["open", "Not applied yet"],
  IMPORTING: ["going", "Importing"],
  IMPORTED: ["good", "Imported"],
  REFUSED: ["bad", "Refused"],
  OUTDATED: ["bad", "Outdated"],
  UNDOING: ["going", "Being undone"],
  UNDONE: ["open", "Undone"],
};
const WITH_CHANGES = ["PREVIEWED", "IMPORTING", "IMPORTED", "UNDOING", "UNDONE"];
// The API reads a file in this encoding only if the request for a preview names it.
const WINDOWS = "windows-1252";
const DELIMITERS = { ",": "commas", ";": "semicolons", "\t": "tabs" };

// --- Words

/** Returns whether an import can be undone. The field `undoable` of a preview describes its import. */
export const canUndo = ({ status, undoable, undoableUntil }) =>
  status === "IMPORTED" && undoable && Date.parse(undoableUntil) > now();

export const isMoving = ({ status }) => STATUS[status][0] === "going";

function statusText({ status, undo }) {
  if (status !== "UNDONE") return STATUS[status][1];
  return `Undone for ${counted(undo.restored, "bean")}${undo.kept ? `, ${number(undo.kept)} kept` : ""}`;
}

export const badge = (upload) => label(STATUS[upload.status][0], statusText(upload));

/** Returns the row counts, such as `3 new, 1 changed, 2 bad rows`. */
const summary = ({ new: added, updated, unchanged, bad }) =>
  amounts({ new: added, changed: updated, unchanged, [bad === 1 ? "bad row" : "bad rows"]: bad }) || "no rows";

const rowsSoFar = ({ rowsRead }) => (rowsRead ? `${counted(rowsRead, "row")} so far` : "");

function keptNames({ kept, keptBeans }, most) {
  const names = keptBeans.slice(0, most).map(beanName);
  return kept > names.length ? [...names, `${number(kept - names.length)} more`] : names;
}

/** Returns a line of text about an upload for the list of uploads. */
export function about(upload) {
  const { counts, reason, undo } = upload;
  if (isMoving(upload)) return rowsSoFar(upload);
  if (undo?.kept) return `Changed since the import, so kept: ${keptNames(undo, KEPT_NAMED).join("; ")}`;
  return reason ?? (counts ? summary(counts) : "");
}

const statuses = new Map();

/** Makes screen readers announce that an upload has been read, imported or undone. */
export function notice(upload) {
  const before = statuses.get(upload.uploadId);
  statuses.set(upload.uploadId, upload.status);
  if (!before || !isMoving({ status: before }) || isMoving(upload)) return;
  announce([`${upload.filename}: ${statusText(upload)}`, about(upload)].filter(Boolean).join(". "));
}

// --- Upload

let opened = null;
let upload = null;

const watch = new Poll(async (signal, retry) => {
  const place = { id: "upload", isVisible: upload, retry, signal };
  ({ upload } = await loaded(place, () => get(path(opened), { limit: 1 }, signal)));
  show();
  return isMoving(upload) ? SECONDS_MOVING : SECONDS;
});

function show() {
  notice(upload);
  entitle($("upload-title"), upload.filename);
  const { rowsRead, ...content } = upload;
  fillOnce("upload-about", content, aboutFile);
  fillOnce("upload-outcome", content, OUTCOMES[upload.status]);
  const hasChanges = upload.counts && WITH_CHANGES.includes(upload.status);
  // While a preview is applied and undone, its changes stay as they are.
  const isApplied = hasChanges && upload.status !== "PREVIEWED" && $("upload-changes").childElementCount > 0;
  const state = hasChanges && [upload.encoding, upload.counts];
  if (!isApplied) fillOnce("upload-changes", state, () => state && changes(upload));
  fillOnce("upload-decision", content, () => DECISIONS[upload.status]?.());
  const progress = $("upload-rows");
  if (progress) progress.textContent = rowsRead ? ` ${rowsSoFar(upload)}` : "";
}

function aboutFile() {
  const { uploadedBy, uploadedAt, bytes, encoding, delimiter } = upload;
  const separated = delimiter ? ` with ${DELIMITERS[delimiter] ?? delimiter}` : "";
  return [
    badge(upload),
    uploadedBy ? h("span", " uploaded by ", h("bdi", uploadedBy)) : " put straight into S3",
    uploadedAt && [", ", time(uploadedAt)],
    bytes > 0 && `, ${size(bytes)}`,
    encoding && `, ${encoding.toUpperCase().replace("WINDOWS", "Windows")}${separated}`,
    traceLink(upload.key),
  ];
}

const callout = (kind, drawing, ...content) => h(`div.callout.${kind}`, icon(drawing), h("div", content));

const refusal = (title) => callout("bad", "alarm", h("p", h("b", title)), h("p.reason", upload.reason));

const progress = (text) => () =>
  h("div.card", h("p", text, h("span", { id: "upload-rows" })), h("progress", { "aria-label": text }));

const unused = () => {
  const columns = upload.unusedColumns.join(", ");
  return columns && h("div.callout", h("p", "Columns that are not used: ", h("b", columns)));
};

const OUTCOMES = {
  WAITING: progress("Waiting for the file to arrive …"),
  PREVIEWING: progress("The file is being read …"),
  IMPORTING: progress("The file is being imported …"),
  UNDOING: progress("The import is being undone …"),
  PREVIEWED: unused,
  IMPORTED: () => [
    callout("good", "done", h("p", h("b", "Imported"), `: ${summary(upload.counts)}.`), undoable()),
    unused(),
  ],
  UNDONE: () => {
    const { requestedBy, undoneAt, kept } = upload.undo;
    const names = keptNames(upload.undo).map((name) => h("li", h("bdi", name)));
    return [
      callout(
        "good",
        "undo",
        h("p", h("b", statusText(upload)), " by ", h("bdi", requestedBy), ", ", time(undoneAt)),
        kept > 0 && [h("p", "Changed since the import, so kept as they are:"), h("ul", names)],
      ),
    ];
  },
  OUTDATED: () => [
    refusal("Nothing was imported"),
    part("differences", "What is different", changeList(upload.differences.map(difference))),
  ],
  REFUSED: () => {
    const reason = refusal("This file cannot be imported");
    if (!upload.looksLike) return [reason];
    const samples = upload.samples.map((each) => changeRow({}, h("p", h("bdi", each))));
    return [reason, part("samples", "Names, read as Windows-1252", changeList(samples))];
  },
};

function undoable() {
  if (canUndo(upload)) {
    const ask = button([icon("undo"), "Undo"], () => askUndo(upload, $("upload-title"), () => watch.now()));
    return [h("p", "You can undo this import until ", time(upload.undoableUntil, "date"), "."), h("p", ask)];
  }
  return [h("p", upload.undoable ? "This import can no longer be undone." : `This import ${TOO_LARGE}`)];
}

// --- Decisions

const decision = (words, ...buttons) =>
  h(
    "div.card.decision",
    h("p", words),
    h(
      "p.buttons",
      buttons,
      button(buttons.length ? "Cancel" : "Close", () => (location.hash = "#uploads")),
    ),
  );
const primary = (text, work, body) =>
  button(text, ({ currentTarget }) => whileBusy(currentTarget, () => act(work, body)), "primary");

const DECISIONS = {
  PREVIEWED: () => {
    const { new: added, updated, bad } = upload.counts;
    if (!added && !updated) return decision("This file would change nothing.");
    const effect = [added && `add ${counted(added, "bean")}`, updated && `change ${counted(updated, "bean")}`];
    const words = [
      "Nothing has been written yet. This file would ",
      h("b", effect.filter(Boolean).join(" and ")),
      bad ? `, and leave out ${counted(bad, "bad row")}. ` : ". ",
      upload.undoable ? "You can undo it within 90 days." : h("b.problem", `This import ${TOO_LARGE}`),
    ];
    return decision(words, primary("Apply", "apply"));
  },
  OUTDATED: () =>
    decision(
      "A new preview compares the file with the present stock.",
      primary("New preview", "preview", upload.encoding === WINDOWS ? { encoding: WINDOWS } : {}),
    ),
  REFUSED: () =>
    upload.looksLike === WINDOWS &&
    decision(
      "If these names are right, the file can be read. You then see what it would change.",
      primary("Read it as Windows-1252", "preview", { encoding: WINDOWS }),
    ),
};

/** Requests `work` on an upload. Repeating the request is safe. */
const request = (id, work, body = {}) => post(`${path(id)}/${work}`, body, { again: true });

async function act(work, body) {
  const [shown, problem] = [opened, $("upload-problem")];
  problem.textContent = "";
  try {
    const answer = await request(opened, work, body);
    if (shown !== opened) return;
    upload = answer;
    show();
    $("upload-title").focus();
    scrollTo(0, 0);
  } catch (error) {
    const { message } = apiError(error);
    if (shown === opened) problem.textContent = message;
  }
  watch.now();
}

/** Asks whether to undo an import. After the request, the element `place` gets the focus, and `done` is called. */
export function askUndo({ uploadId, filename }, place, done) {
  const shown = opened;
  ask({
    title: "Undo this import?",
    about: [
      h("b", filename),
      ": beans that it changed get their earlier values back, and beans that it added are removed. " +
        "Beans that somebody has changed since stay as they are, and the result names them.",
    ],
    yes: "Undo the import",
    work: () => request(uploadId, "undo"),
    done: (answer) => {
      if (shown !== opened) return;
      notice(answer);
      place.focus();
      done();
    },
  });
}

export const preview = {
  /** Opens an upload. `known` is the upload as the list shows it, if the list shows it. */
  open(uploadId, known) {
    if (uploadId !== opened) {
      upload = known ?? null;
      for (const id of ["about", "outcome", "changes", "decision"]) fillOnce(`upload-${id}`, "", () => []);
      for (const place of ["state", "problem"]) put($(`upload-${place}`));
      $("upload-title").textContent = known?.filename ?? "Upload";
    }
    opened = uploadId;
    if (upload) show();
    watch.start();
  },
  close() {
    opened = null;
    watch.stop();
  },
};
