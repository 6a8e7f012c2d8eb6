/** Formats times, sizes and numbers in English and in the viewer's time zone. */
import { h } from "./dom.js";

const locale = navigator.languages.find((each) => each.startsWith("en")) ?? "en-GB";
const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;

const format = (...options) => new Intl.DateTimeFormat(locale, Object.assign({}, ...options)).format;
const DAY = { day: "numeric", month: "short" };
const YEAR = { year: "numeric" };
const CLOCK = { hour: "numeric", minute: "2-digit" };
const FULL = { weekday: "long", day: "numeric", month: "long" };
const dayTime = format(DAY, CLOCK);
const yearTime = format(DAY, YEAR, CLOCK);
const has12Hours = new Intl.DateTimeFormat(locale, CLOCK).resolvedOptions().hour12;

// The user's clock lags behind the server's by this many milliseconds. Less than two minutes are ignored.
let behind = 0;
let compared = false;

/** Compares the user's clock with the server's once, for correct countdowns and days. */
export function serverTime(text) {
  const difference = Date.parse(text ?? "") - Date.now();
  if (compared || Number.isNaN(difference)) return;
  compared = true;
  if (Math.abs(difference) > 2 * MINUTE) behind = difference;
}

/** Returns the server's time in milliseconds. */
export const now = () => Date.now() + behind;

export const number = new Intl.NumberFormat(locale).format;

/** Returns a number with its noun, such as `1 order` or `2 orders`. */
export const counted = (value, thing, things = `${thing}s`) => `${number(value)} ${value === 1 ? thing : things}`;

/** Returns text such as `3 new, 1 changed`, without the amounts that are 0. */
export const amounts = (named) =>
  Object.entries(named)
    .filter(([, amount]) => amount)
    .map(([name, amount]) => `${number(amount)} ${name}`)
    .join(", ");

/** Returns a size such as `114.2 GB`, in the same format as the reports. */
export function size(bytes) {
  if (bytes < 1000) return `${number(bytes)} ${bytes === 1 ? "Byte" : "Bytes"}`;
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  const power = Math.min(Math.floor(Math.log10(bytes * 1.00005) / 3), units.length);
  return `${(bytes / 1000 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** Returns a duration such as `80 ms`, `4.2 s`, `1 min 12 s` or `2 h 5 min`. A running timer sets `decimals` to 0. */
export function duration(milliseconds, decimals = 1) {
  const time = Math.max(0, milliseconds);
  if (time < SECOND && decimals) return `${Math.round(time)} ms`;
  if (time < MINUTE) return `${(time / SECOND).toFixed(time < 10 * SECOND ? decimals : 0)} s`;
  if (time < HOUR) return `${Math.floor(time / MINUTE)} min ${Math.floor((time % MINUTE) / SECOND)} s`;
  return `${Math.floor(time / HOUR)} h ${Math.floor((time % HOUR) / MINUTE)} min`;
}

/** Returns minutes and seconds, such as `9:05`. */
export function countdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / SECOND));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export const clock = format(CLOCK);

export const weekday = format(FULL);

/** Returns an hour such as `2 pm`, or `14:00` if the viewer uses a 24-hour clock. */
export const hour = has12Hours ? format({ hour: "numeric" }) : clock;

/** Returns the start of the day `days` days ago, in the viewer's time zone. */
export function midnight(days = 0) {
  const date = new Date(now());
  date.setHours(0, 0, 0, 0);
  date.setDate(date.getDate() - days);
  return date;
}

/** Returns a date such as `2026-11-30`, which is the Swedish format. */
export const dayOf = (date) => date.toLocaleDateString("sv");

/** Returns the start of a day such as `2026-11-30`, or of the day `later` days later. */
export function startOf(day, later = 0) {
  const date = new Date(`${day}T00:00`);
  date.setDate(date.getDate() + later);
  return date;
}

/** Returns the query parameters for the orders from one day to another. */
export const range = (first, last = first) => ({
  since: startOf(first).toISOString(),
  until: startOf(last, 1).toISOString(),
});

/** Returns a time as lists show it: `14:05` today, and otherwise `19 Nov, 14:05` or `19 Nov 2025, 14:05`. */
export function short(date) {
  if (date >= midnight() && date < midnight(-1)) return clock(date);
  return (date.getFullYear() === midnight().getFullYear() ? dayTime : yearTime)(date);
}

export const moment = format(FULL, YEAR, CLOCK, { second: "2-digit", timeZoneName: "short" });

const FORMS = { short, date: format(DAY, YEAR), moment };

/** Returns text with the timestamps of the API and of CloudWatch in the viewer's time zone. */
export const inZone = (text) =>
  text
    .replace(/\b(\d\d)\/(\d\d)\/(\d\d) (\d\d:\d\d:\d\d)\b/g, "20$3-$2-$1T$4Z")
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.]*Z/g, (iso) =>
      Number.isNaN(Date.parse(iso)) ? iso : short(new Date(iso)),
    );

/** Returns a title with file names in place of S3 keys. */
export const fileNames = (title) => title.replace(/\b(?:inventory|previews|uploads)\/(?:[^\s(]+\/)?/g, "");

// Matches control characters other than line breaks and tabs, and characters that reorder text or have no width.
const UNSEEN = /[^\P{Cc}\n\t]|[\p{Bidi_Control}\p{Cs}\u200b\u2028\u2029\ufeff]/gu;

/** Returns untrusted text with escapes, such as `\u{202e}`, in place of invisible characters. */
export const visible = (text) => text.replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

/** Returns a `<time>` element in the format `how`: `short`, `date` or `moment`. */
export function time(iso, how = "short") {
  const date = new Date(iso);
  return h("time", { datetime: iso, title: moment(date), "data-how": how }, FORMS[how](date));
}

/** Updates all times on the page, because a time of today gets a date at midnight. */
export function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-how]")) {
    const text = FORMS[element.dataset.how](new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}
