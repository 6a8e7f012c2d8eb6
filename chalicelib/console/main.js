/**
 * Starts the console. Shows the tab named in the URL fragment, and the elements that all tabs share.
 *
 * Each tab has a module and a section in index.html. Its `open(id, query)` and `close()` start and stop the polling.
 * The property `needs` names the group whose members may use the tab.
 *
 * Some tabs have more modules: `order` and `export`, `machine` and `storage`, `preview` and `changes`, and `handled`.
 * The module `ask` asks before a change. Requests go through the module `api`, which uses `sign-in` for tokens and `connection` for retries.
 */
import { onConnection, retry } from "./connection.js";
import { look, startCounting } from "./counts.js";
import { deadLetters } from "./dead-letters.js";
import { $, announce, button, entitle, h, icon, put } from "./dom.js";
import { refreshTimes } from "./format.js";
import { inbox } from "./inbox.js";
import { forbidden } from "./listing.js";
import { orders } from "./orders.js";
import { reports } from "./reports.js";
import { person, signOut, startSession } from "./sign-in.js";
import { today } from "./today.js";
import { uploads } from "./uploads.js";

const tabs = { today, orders, reports, uploads, inbox, "dead-letters": deadLetters };

// The open tab.
let opened = null;
let shownTitle = null;

const anchors = document.querySelectorAll("nav.tabs a");

const allowed = (tab) => !tabs[tab].needs || person().isManager;

/** Shows the tab named in the URL fragment, such as `#orders`, `#orders/<id>` or `#orders?day=<day>`. */
function route({ byHand = true } = {}) {
  if (!person()) return;
  const [path, query] = location.hash.slice(1).split("?");
  const [tab, id] = path.split("/");
  if (!Object.hasOwn(tabs, tab)) {
    history.replaceState(null, "", person().isManager ? "#today" : "#orders");
    route({ byHand });
    return;
  }
  document.querySelectorAll("dialog:not(#again)").forEach((each) => each.close());
  if (opened && opened !== tab) {
    tabs[opened].close();
    $(`view-${opened}`).hidden = true;
  }
  opened = tab;
  const view = $(`view-${tab}`);
  view.hidden = false;
  for (const anchor of anchors) anchor.ariaCurrent = anchor.hash === `#${tab}` ? "page" : null;
  showAllowed(view, tab);
  if (allowed(tab)) tabs[tab].open(id, query);
  else tabs[tab].close();
  look();
  const title = [...view.querySelectorAll("h1")].find((each) => each.checkVisibility());
  title.tabIndex = -1;
  entitle(title, title.textContent);
  if (title !== shownTitle && byHand) {
    scrollTo(0, 0);
    // If a dialog is open, the focus stays in the dialog.
    if (!document.querySelector("dialog[open]")) title.focus({ preventScroll: true });
  }
  shownTitle = title;
}

function showAllowed(view, tab) {
  view.querySelector(":scope > .forbidden")?.remove();
  view.classList.toggle("closed", !allowed(tab));
  if (allowed(tab)) return;
  const name = document.querySelector(`nav.tabs a[href="#${tab}"] > span`).textContent.toLowerCase();
  forbidden(view.appendChild(h("div.forbidden")), name);
}

/** Updates the page after a sign-in, or after the user's groups change. */
function showPerson(now) {
  $("gate").hidden = Boolean(now);
  $("app").hidden = !now;
  if (!now) return;
  $("person-name").textContent = now.name;
  $("person-role").textContent = now.isManager ? "manager" : now.groups.includes("staff") ? "staff" : "no group";
  for (const anchor of anchors) {
    anchor.querySelector(".lock")?.remove();
    if (allowed(anchor.hash.slice(1))) continue;
    anchor.append(h("span.lock", icon("lock"), h("span.unseen", " (managers only)")));
  }
  const mayNow = opened && allowed(opened);
  // After sign-in, the focus moves from the form to the heading of the tab.
  if (!opened || mayNow === $(`view-${opened}`).classList.contains("closed")) route({ byHand: !$("gate-form").hidden });
  startCounting();
}

function showConnection(seconds) {
  const place = $("connection");
  if (seconds === null) {
    put(place);
    announce("Connected again.");
    return;
  }
  if (!place.childElementCount) {
    const words = "No connection. Your input is safe. Pending requests will be sent once the connection is back.";
    put(place, icon("alarm"), h("p", words), button("Try now", retry, "quiet"));
  }
  place.querySelector("button").ariaBusy = String(seconds === 0);
}

// Without a final slash, the URL would differ from the base URL, and every `#tab` link would reload the page.
if (location.href.split("#")[0] !== document.baseURI) history.replaceState(null, "", document.baseURI + location.hash);

$("sign-out").onclick = signOut;
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  $("content").focus();
};
addEventListener("hashchange", () => route());
onConnection(showConnection);
setInterval(() => document.hidden || refreshTimes(), 15_000);
startSession(showPerson);
