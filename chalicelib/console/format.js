/** Times, sizes and numbers as people read them: in the viewer's zone, and in English, as is the page. */
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

// How far this machine's clock is behind the server's; a minute or two do not matter.
let behind = 0;
let compared = false;

/** Notes the server's time, once: ages and links that expire are counted by it. */
export function serverTime(text) {
  const difference = Date.parse(text ?? "") - Date.now();
  if (compared || Number.isNaN(difference)) return;
  compared = true;
  if (Math.abs(difference) > 2 * MINUTE) behind = difference;
}

/** Milliseconds since 1970, by the server's clock. */
export const now = () => Date.now() + behind;

export const number = (value) => numbers.format(value);

/** `1 order`, `2 orders`. */
export const counted = (value, thing, things = `${thing}s`) => `${number(value)} ${value === 1 ? thing : things}`;

/** `114.2 GB`, as the reports have it. */
export function size(bytes) {
  if (bytes < 1000) return `${number(bytes)} ${bytes === 1 ? "Byte" : "Bytes"}`;
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  const power = Math.min(Math.floor(Math.log10(bytes * 1.00005) / 3), units.length);
  return `${(bytes / 1000 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** `4.2 s`, `1 min 12 s`, `2 h 5 min`; with no `decimals` for what goes on. */
export function duration(milliseconds, decimals = 1) {
  const time = Math.max(0, milliseconds);
  if (time < MINUTE) return `${(time / SECOND).toFixed(time < 10 * SECOND ? decimals : 0)} s`;
  if (time < HOUR) return `${Math.floor(time / MINUTE)} min ${Math.floor((time % MINUTE) / SECOND)} s`;
  return `${Math.floor(time / HOUR)} h ${Math.floor((time % HOUR) / MINUTE)} min`;
}

/** `9:05`, what is left of a link's hour. */
export function countdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / SECOND));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export const clock = (date) => clocks.format(date);

/** `Saturday, 21 November`. */
export const weekday = (date) => dates.format(date);

/** `2 PM` where the clock has twelve hours, and otherwise `14:00`. */
export const hour = (date) => (clocks.resolvedOptions().hour12 ? hours : clocks).format(date);

/** The first moment of the viewer's day, `days` before today. */
export function midnight(days = 0) {
  const date = new Date(now());
  date.setHours(0, 0, 0, 0);
  date.setDate(date.getDate() - days);
  return date;
}

/** `today`, `yesterday`, `Thursday, 19 November`, and for another year its date. */
export function day(date) {
  if (date >= midnight()) return "today";
  if (date >= midnight(1)) return "yesterday";
  return (date.getFullYear() === midnight().getFullYear() ? dates : datesOfYears).format(date);
}

export const moment = (date) => moments.format(date);

/** `just now`, `5 minutes ago`, `1 day ago`. */
export function age(date) {
  const passed = now() - date;
  if (passed < 45 * SECOND) return "just now";
  if (passed < HOUR) return relative.format(-Math.max(1, Math.floor(passed / MINUTE)), "minute");
  if (passed < DAY) return relative.format(-Math.floor(passed / HOUR), "hour");
  return relative.format(-Math.floor(passed / DAY), "day");
}

/** `14:05 today`, `14:05 on Thursday, 19 November`. */
export function short(date) {
  const name = day(date);
  return `${clock(date)} ${date >= midnight(1) ? name : `on ${name}`}`;
}

/** A text of the API, whose timestamps become times of the viewer's zone. */
export const inZone = (text) =>
  text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.]*Z/g, (iso) =>
    Number.isNaN(Date.parse(iso)) ? iso : short(new Date(iso)),
  );

/** A `<time>`: `how` is `age`, which keeps itself up to date, or another one of these. */
export function time(iso, how = "age") {
  const date = new Date(iso);
  const text = { age, day, moment, short }[how](date);
  return h("time", { datetime: iso, title: moment(date), "data-age": how === "age", text });
}

/** Brings the ages in the page up to date. */
export function refreshAges() {
  for (const element of document.querySelectorAll("time[data-age]")) {
    const text = age(new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}
