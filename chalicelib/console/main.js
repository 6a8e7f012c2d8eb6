/**
 * The console. This module shows one tab at a time, by the address's part behind `#`, and what all tabs share.
 *
 * Each tab is a module with its part of index.html: `open(id)` is called when it is shown, or shown with another id,
 * and `close()` when it is left; in between it polls. `needs` names the group that it is for.
 *
 *     main ─ today, orders, reports (machine, storage), uploads, inbox, dead-letters
 *            each on: listing (lists with all their states), poll, format (times and sizes), dom (elements)
 *            and on: api (requests) ─ sign-in (tokens), connection (waiting for it), kept (what a reload finds)
 */
import { onConnection, retry } from "./connection.js";
import { config } from "./config.js";
import { deadLetters } from "./dead-letters.js";
import { $, announce, button, h, icon } from "./dom.js";
import { refreshAges } from "./format.js";
import { inbox } from "./inbox.js";
import { forbidden } from "./listing.js";
import { orders } from "./orders.js";
import { reports } from "./reports.js";
import { person, signOut, startSession } from "./sign-in.js";
import { today } from "./today.js";
import { uploads } from "./uploads.js";

const tabs = { today, orders, reports, uploads, inbox, "dead-letters": deadLetters };
const AGES_SECONDS = 15;

let opened = null; // { tab, id }
let shownTitle = null;

const allowed = (tab) => !tabs[tab].needs || person().isManager;

/** Shows what the address asks for: `#orders`, or `#orders/<id>`. */
function route({ byHand = true } = {}) {
  if (!person()) return;
  const [tab, id] = location.hash.slice(1).split("/");
  if (!Object.hasOwn(tabs, tab)) {
    history.replaceState(null, "", "#today");
    route({ byHand });
    return;
  }
  const isOther = opened?.tab !== tab;
  if (isOther && opened) {
    tabs[opened.tab].close();
    $(`view-${opened.tab}`).hidden = true;
  }
  opened = { tab, id };
  const view = $(`view-${tab}`);
  view.hidden = false;
  for (const anchor of document.querySelectorAll("nav.tabs a")) {
    if (anchor.hash === `#${tab}`) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  showAllowed(view, tab);
  if (allowed(tab)) tabs[tab].open(id);
  else tabs[tab].close();
  const title = [...view.querySelectorAll("h1")].find((each) => each.checkVisibility());
  document.title = `${title.textContent} · Café back office`;
  if (title !== shownTitle && byHand) {
    scrollTo(0, 0);
    // A dialog has the focus to itself.
    if (!document.querySelector("dialog[open]")) title.focus({ preventScroll: true });
  }
  shownTitle = title;
}

/** In place of what somebody may not see stands why. */
function showAllowed(view, tab) {
  const name = document.querySelector(`nav.tabs a[href="#${tab}"] > span`).textContent.toLowerCase();
  view.querySelector(":scope > .forbidden")?.remove();
  view.classList.toggle("closed", !allowed(tab));
  if (allowed(tab)) return;
  const place = h("div.forbidden");
  view.append(place);
  forbidden(place, name);
}

/** Somebody signed in, or has other groups now. */
function showPerson(now) {
  $("gate").hidden = Boolean(now);
  $("app").hidden = !now;
  if (!now) return;
  $("person-name").textContent = now.name;
  $("person-role").textContent = now.isManager ? "manager" : now.groups.includes("staff") ? "staff" : "no group";
  for (const anchor of document.querySelectorAll("nav.tabs a")) {
    anchor.querySelector(".lock")?.remove();
    if (allowed(anchor.hash.slice(1))) continue;
    anchor.append(h("span.lock", icon("lock"), h("span.unseen", " (managers only)")));
  }
  const mayNow = opened && allowed(opened.tab);
  // Whoever signed in at the gate begins at the heading.
  if (!opened || mayNow === $(`view-${opened.tab}`).classList.contains("closed"))
    route({ byHand: !$("gate-form").hidden });
}

function showConnection(seconds) {
  const place = $("connection");
  if (seconds === null) {
    place.replaceChildren();
    announce("Connected again.");
    return;
  }
  if (!place.childElementCount) {
    const words = "No connection. What you typed stays here, and what you sent goes out by itself once it is back.";
    place.replaceChildren(icon("alarm"), h("p", words), button("Try now", retry, "quiet"));
  }
  place.querySelector("button").ariaBusy = String(seconds === 0);
}

// An address without the slash at its end would make each `#tab` another page.
if (location.href.split("#")[0] !== document.baseURI) history.replaceState(null, "", document.baseURI + location.hash);

$("stage").textContent = config.stage;
$("version").textContent = config.version;
$("sign-out").addEventListener("click", signOut);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("content").focus();
});
addEventListener("hashchange", () => route());
onConnection(showConnection);
setInterval(() => document.hidden || refreshAges(), AGES_SECONDS * 1000);
startSession(showPerson);
