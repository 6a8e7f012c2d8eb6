/** Counts the failures and messages that this person has not looked at, next to the names of the tabs. */
import { get } from "./api.js";
import { announce, h } from "./dom.js";
import { midnight, number } from "./format.js";
import { isUnread, notifications, toneOf } from "./inbox.js";
import { keep, recall } from "./kept.js";
import { Poll } from "./listing.js";
import { person } from "./sign-in.js";

const SECONDS = 30;
export const MESSAGES = 20;

let figures = null;
const isOpen = (tab) => location.hash === `#${tab}`;

const poll = new Poll(async (signal) => {
  // The Today tab updates the counts.
  if (!isOpen("today"))
    await Promise.all([
      person()?.isManager && get("today", { since: midnight().toISOString() }, signal).then(countFailures),
      isOpen("inbox") || notifications({ limit: MESSAGES }, signal).then(countMessages),
    ]);
  return SECONDS;
});

export const startCounting = () => poll.start();

/** Resets the count of the tab that is open. */
export function look() {
  if (isOpen("inbox")) show("inbox", 0, "");
  if (figures) countFailures(figures);
}

/** Counts the failures in a response of `GET /today`. Looking at the list of reports or uploads resets its count. */
export function countFailures(today) {
  figures = today;
  const { name, isManager } = person() ?? {};
  if (!isManager) return;
  const day = midnight().toISOString();
  const kept = recall(`seen-${name}`, "localStorage");
  const seen = kept?.day === day ? kept : { day };
  for (const [tab, failed] of Object.entries({ reports: today.reports.failed, uploads: today.uploads.notImported })) {
    if (isOpen(tab)) seen[tab] = failed;
    const unseen = failed - (seen[tab] ?? 0);
    show(tab, unseen, `new failure${unseen > 1 ? "s" : ""} today`);
  }
  keep(`seen-${name}`, seen, "localStorage");
  countLetters(today.failures.deadLetters);
}

export const countLetters = (total) => show("dead-letters", total, "waiting");

export function countMessages({ items, next }) {
  const unread = isOpen("inbox") ? [] : items.filter(isUnread);
  const isBad = unread.some((each) => toneOf(each) === "bad");
  const more = next && unread.length === items.length ? "+" : "";
  show("inbox", unread.length, isBad ? "unread, with a failure" : "unread", more, isBad ? "" : ".news");
}

/** Shows a count. Screen readers also read its `words`, and announce new failures. */
function show(tab, count, words, more = "", kind = "") {
  const anchor = document.querySelector(`.tabs [href="#${tab}"]`);
  const old = anchor.querySelector(".count");
  const text = `${number(count)}${more} ${words}`;
  if (tab !== "inbox" && count > old?.dataset.count) announce(`${anchor.querySelector("span").textContent}: ${text}`);
  old?.remove();
  // A count of 0 is kept to recognise a new failure.
  anchor.append(
    h(`b.count${kind}`, { "data-count": count, hidden: count < 1 }, number(count), more, h("span.unseen", ` ${words}`)),
  );
}
