/** Formats times, sizes and numbers in English and in the viewer's time zone. */
import { h } from "./dom.js";

const locale = navigator.languages.find((each) => each.startsWith("en")) ?? "en-GB";
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const numbers = new Intl.NumberFormat(locale);
const clocks = new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit" });
const hours = new Intl.DateTimeFormat(locale, { hour: "numeric" });
const dates = new Intl.DateTimeFormat(locale, { weekday: "long", day: "numeric", month: "long" });
const datesOfYears = new Intl.DateTimeFormat(locale, { day: "numeric", month: "long", year: "numeric" });
const moments = new Intl.DateTimeFormat(locale, {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
  hour: "numeric",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const relative = new Intl.RelativeTimeFormat(locale);

// The user's clock lags behind the server's clock by this many milliseconds.
// Clock differences of up to two minutes are ignored.
let behind = 0;
let compared = false;

/** Compares the clocks of the user and the server once, so that displayed ages are correct. */
export function serverTime(text) {
  const difference = Date.parse(text ?? "") - Date.now();
  if (compared || Number.isNaN(difference)) return;
  compared = true;
  if (Math.abs(difference) > 2 * MINUTE) behind = difference;
}

/** Returns the current server time, as Unix time in milliseconds. */
export const now = () => Date.now() + behind;

export const number = (value) => numbers.format(value);

/** Returns a number with its noun, such as `1 order` or `2 orders`. */
export const counted = (value, thing, things = `${thing}s`) => `${number(value)} ${value === 1 ? thing : things}`;

/** Returns a size such as `114.2 GB`, in the same format as the reports. */
export function size(bytes) {
  if (bytes < 1000) return `${number(bytes)} ${bytes === 1 ? "Byte" : "Bytes"}`;
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  const power = Math.min(Math.floor(Math.log10(bytes * 1.00005) / 3), units.length);
  return `${(bytes / 1000 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** Returns a duration such as `4.2 s`, `1 min 12 s` or `2 h 5 min`. For a running timer, set `decimals` to 0. */
export function duration(milliseconds, decimals = 1) {
  const time = Math.max(0, milliseconds);
  if (time < MINUTE) return `${(time / SECOND).toFixed(time < 10 * SECOND ? decimals : 0)} s`;
  if (time < HOUR) return `${Math.floor(time / MINUTE)} min ${Math.floor((time % MINUTE) / SECOND)} s`;
  return `${Math.floor(time / HOUR)} h ${Math.floor((time % HOUR) / MINUTE)} min`;
}

/** Returns the remaining time in minutes and seconds, such as `9:05`. */
export function countdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / SECOND));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export const clock = (date) => clocks.format(date);

/** Returns a date such as `Saturday, 21 November`. */
export const weekday = (date) => dates.format(date);

/** Returns an hour such as `2 PM`, or `14:00` if the viewer uses a 24-hour clock. */
export const hour = (date) => (clocks.resolvedOptions().hour12 ? hours : clocks).format(date);

/** Returns the start of the day `days` days ago, in the viewer's time zone. */
export function midnight(days = 0) {
  const date = new Date(now());
  date.setHours(0, 0, 0, 0);
  date.setDate(date.getDate() - days);
  return date;
}

/** Returns `today`, `yesterday`, or a date such as `Thursday, 19 November` or `19 November 2025`. */
export function day(date) {
  if (date >= midnight()) return "today";
  if (date >= midnight(1)) return "yesterday";
  return (date.getFullYear() === midnight().getFullYear() ? dates : datesOfYears).format(date);
}

export const moment = (date) => moments.format(date);

/** Returns an age such as `just now`, `5 minutes ago` or `1 day ago`. */
export function age(date) {
  const passed = now() - date;
  if (passed < 45 * SECOND) return "just now";
  if (passed < HOUR) return relative.format(-Math.max(1, Math.floor(passed / MINUTE)), "minute");
  if (passed < DAY) return relative.format(-Math.floor(passed / HOUR), "hour");
  return relative.format(-Math.floor(passed / DAY), "day");
}

/** Returns a time and a day, such as `14:05 today` or `14:05 on Thursday, 19 November`. */
export function short(date) {
  const name = day(date);
  return `${clock(date)} ${date >= midnight(1) ? name : `on ${name}`}`;
}

/** Returns text from the API with its timestamps converted to the viewer's time zone. */
export const inZone = (text) =>
  text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.]*Z/g, (iso) =>
    Number.isNaN(Date.parse(iso)) ? iso : short(new Date(iso)),
  );

// Matches control characters other than line breaks and tabs, and characters that reorder text or have no width.
const UNSEEN = /[^\P{Cc}\n\t]|[\p{Bidi_Control}\p{Cs}\u200b\u2028\u2029\ufeff]/gu;

/** Returns untrusted text with escapes, such as `\u{202e}`, in place of invisible characters. */
export const visible = (text) => text.replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

/** Returns a `<time>` element in the format `how`: `age`, `date`, `day`, `moment` or `short`. */
export function time(iso, how = "age") {
  const date = new Date(iso);
  const text = { age, date: datesOfYears.format, day, moment, short }[how](date);
  return h("time", { datetime: iso, title: moment(date), "data-age": how === "age", text });
}

/** Updates all ages shown on the page. */
export function refreshAges() {
  for (const element of document.querySelectorAll("time[data-age]")) {
    const text = age(new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}
