/** Asks a question in a dialog before something happens that is hard to reverse. */
import { apiError } from "./api.js";
import { $, openDialog, put, whileBusy } from "./dom.js";

const parts = ["", "-title", "-about", "-text", "-problem", "-yes", "-no"];
const [dialog, title, about, text, problem, yes, no] = parts.map((part) => $(`ask${part}`));
let asked;

/**
 * Opens the dialog with `{ title, about, text, yes, no, isDangerous, work, done, closed }`.
 * The content of `about` and `text` is passed to `put`. After a yes, waits for `work`. If it fails, shows the error.
 * Otherwise, closes the dialog and passes the result to `done`.
 */
export function ask(question) {
  asked = question;
  title.textContent = question.title;
  put(about, question.about);
  put(text, question.text);
  problem.textContent = "";
  yes.textContent = question.yes;
  yes.className = question.isDangerous ? "danger" : "primary";
  no.textContent = question.no ?? "Cancel";
  no.autofocus = question.isDangerous;
  openDialog(dialog);
}

yes.addEventListener("click", () =>
  whileBusy(yes, async () => {
    const question = asked;
    problem.textContent = "";
    try {
      const answer = await question.work?.();
      if (asked === question) dialog.close();
      question.done?.(answer);
    } catch (error) {
      const { message } = apiError(error);
      if (asked === question) problem.textContent = message;
    }
  }),
);
dialog.addEventListener("close", () => asked.closed?.());
