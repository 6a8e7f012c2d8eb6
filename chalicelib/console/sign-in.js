/**
 * Handles sign-in and sessions.
 * The console calls the Cognito user pool directly, and stores tokens only in its open browser tabs.
 *
 * `token()` waits until a user is signed in, and returns a token that is not about to expire.
 * If the refresh token has expired, a dialog asks for the password. Pending requests continue after sign-in.
 *
 * On `channel`, new tabs send `"who?"`, tabs send a new or requested session, and `"out"` ends all sessions.
 */
import { pause } from "./connection.js";
import { $, announce, onSubmit, openDialog, meta } from "./dom.js";
import { forget, keep, recall } from "./kept.js";

// A token is replaced this many milliseconds before it expires, or after two thirds of a shorter lifetime.
const EARLY = 5 * 60_000;

// A new tab waits this many milliseconds for another tab's session before it shows the form.
const ANSWER = 150;

// Two stages can have the same origin, but not the same client.
const channel = new BroadcastChannel(`cafe-${meta("client-id")}`);

// Holds the session as `{ id, refresh, renewAt, name, groups, mark }`, or null if nobody is signed in.
let tokens = null;
// Holds the newest token that replaced a token refused by the API.
// If the API also refuses `renewedToken`, the user has no permission.
let renewedToken = null;
let refreshing = null;
let signedIn = Promise.withResolvers();
let onChange = () => {};

// AWS WAF refuses requests with a ForbiddenException, for example if an address sends too many.
const BUSY = ["TooManyRequestsException", "LimitExceededException", "InternalErrorException", "ForbiddenException"];

/** An error returned by the user pool. `code` is the type of the error, such as `NotAuthorizedException`. */
class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function ask(action, body) {
  const response = await fetch(meta("cognito-endpoint"), {
    method: "POST",
    headers: {
      "Content-Type": "application/x-amz-json-1.1",
      "X-Amz-Target": `AWSCognitoIdentityProviderService.${action}`,
    },
    body: JSON.stringify({ ClientId: meta("client-id"), ...body }),
    cache: "no-store",
    credentials: "omit",
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new Refused((answer.__type ?? `${response.status}`).split("#").pop(), answer.message ?? answer.Message ?? "");
}

function claims(jwt) {
  const text = atob(jwt.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (each) => each.charCodeAt(0))));
}

/** Returns a value that changes at each sign-out, for tabs that were asleep, or null without localStorage. */
const currentMark = () => recall(meta("client-id"), "localStorage");

// A session of an earlier version may hold the mark as a string.
const isCurrent = ({ mark = null }) => `${mark}` === `${currentMark()}`;

function storeTokens(result, mark) {
  const payload = claims(result.IdToken);
  const lifetime = result.ExpiresIn * 1000;
  const session = {
    id: result.IdToken,
    // The response to a refresh contains a new refresh token only if the pool rotates refresh tokens.
    refresh: result.RefreshToken ?? tokens?.refresh,
    renewAt: Date.now() + lifetime - Math.min(EARLY, lifetime / 3),
    name: payload["cognito:username"],
    groups: payload["cognito:groups"] ?? [],
    mark,
  };
  adopt(session);
  channel.postMessage(session);
}

function adopt(session) {
  tokens = session;
  keep("session", tokens);
  form.reset();
  showTyped();
  showProblem("");
  onChange(person());
  signedIn.resolve();
  signedIn = Promise.withResolvers();
}

/** Returns `{ name, groups, isManager }`, or null if nobody is signed in. */
export function person() {
  if (!tokens) return null;
  const { name, groups } = tokens;
  return { name, groups, isManager: groups.includes("managers") };
}

channel.onmessage = ({ data }) => {
  if (data === "who?") {
    if (tokens) channel.postMessage(tokens);
  } else if (data === "out") {
    if (tokens) leave();
  } else if (isCurrent(data) && !challenge && submitButton.ariaBusy !== "true") {
    // Another user's work must not continue under the new name.
    if (!tokens || (data.name === tokens.name && data.renewAt > tokens.renewAt)) adopt(data);
  }
};

/** Returns an ID token, and replaces it first if it expires soon. Throws a TypeError if the user pool cannot be reached. */
export async function token() {
  if (tokens && !isCurrent(tokens)) leave();
  if (!tokens) await signedIn.promise;
  if (Date.now() > tokens.renewAt) await refresh();
  return tokens.id;
}

/** Replaces the token `stale` after the API refused it. Returns false if a new token would not help. */
export async function renew(stale) {
  if (tokens?.id === stale) {
    if (stale === renewedToken) return false;
    await refresh();
    renewedToken = tokens?.id;
  }
  return true;
}

/** Gets tokens with the current groups of the user. Throws a TypeError if the user pool is unavailable. */
export function refresh() {
  refreshing ??= (async () => {
    try {
      const parameters = { REFRESH_TOKEN: tokens.refresh };
      const answer = await ask("InitiateAuth", { AuthFlow: "REFRESH_TOKEN_AUTH", AuthParameters: parameters });
      // The user may have signed out while this request was running.
      if (tokens) storeTokens(answer.AuthenticationResult, tokens.mark);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (BUSY.includes(error.code)) throw new TypeError(error.message);
      await signInAgain();
    }
  })().finally(() => (refreshing = null));
  return refreshing;
}

// --- Form

const form = $("sign-in");
const problem = $("sign-in-problem");
// Holds `{ session, name }` while the user must choose a new password, and otherwise null.
let challenge = null;
const submitButton = form.querySelector(".primary");
const rules = [...$("password-rules").children];

const WORDS = {
  UserNotFoundException: "Incorrect username or password.",
  PasswordResetRequiredException: "This password must be reset. Ask an administrator for a new one.",
  UserNotConfirmedException: "This account is not confirmed. Ask an administrator to confirm it.",
  TooManyRequestsException: "Too many people are signing in. Wait a moment, and try again.",
  LimitExceededException: "Too many attempts. Wait a moment, and try again.",
};

function explain(error) {
  if (!(error instanceof Refused)) return "No connection. Your input is safe. Try again in a moment.";
  // NotAuthorizedException has several causes, and only its message distinguishes them.
  return WORDS[error.code] ?? (error.message || `The user pool refused the sign-in (${error.code}). Try again.`);
}

const showProblem = (text) => (problem.textContent = text);

function refuse(text, field) {
  showProblem(text);
  field.focus();
}

function showStep() {
  $("sign-in-credentials").hidden = Boolean(challenge);
  $("sign-in-new").hidden = !challenge;
  unmetRules();
  submitButton.textContent = challenge ? "Save this password" : "Sign in";
}

/** Shows which rules the new password meets. Returns the others. */
function unmetRules() {
  const password = $("new-password").value;
  return rules.filter((rule) => !rule.classList.toggle("met", RegExp(rule.dataset.rule).test(password)));
}

// Screen readers hear only the end of each step, not every key.
$("sign-in-new").oninput = () => {
  const wereMet = rules.every((rule) => rule.className);
  if (!unmetRules().length && !wereMet) announce("The new password meets all rules.");
  const place = $("again-problem");
  const text = $("new-password").value.startsWith($("new-password-again").value) ? "" : "The two passwords differ.";
  if (text && !place.textContent) announce(text);
  place.textContent = text;
};

async function sendForm(fields) {
  if (!challenge) {
    const parameters = { USERNAME: fields.name, PASSWORD: fields.password };
    return [fields.name, await ask("InitiateAuth", { AuthFlow: "USER_PASSWORD_AUTH", AuthParameters: parameters })];
  }
  const responses = { USERNAME: challenge.name, NEW_PASSWORD: fields.next };
  const body = { ChallengeName: "NEW_PASSWORD_REQUIRED", Session: challenge.session, ChallengeResponses: responses };
  return [challenge.name, await ask("RespondToAuthChallenge", body)];
}

async function submit() {
  const fields = { name: $("name").value.trim(), password: $("password").value, next: $("new-password").value };
  const [first, second] = challenge ? [$("new-password"), $("new-password-again")] : [$("name"), $("password")];
  if (challenge && unmetRules().length) return refuse("The new password does not meet all rules.", first);
  if (!first.value || !second.value) return refuse("Fill in both fields.", first.value ? second : first);
  if (challenge && first.value !== second.value)
    return refuse("The two passwords differ. Type the same password in both fields.", second);
  let name, answer;
  try {
    [name, answer] = await sendForm(fields);
  } catch (error) {
    if (challenge && error.code === "NotAuthorizedException") {
      challenge = null;
      showStep();
      showProblem("The time limit for choosing a password has passed. Sign in again.");
    } else {
      showProblem(explain(error));
    }
    (challenge ? $("new-password") : $("password")).select();
    return;
  }
  if (answer.ChallengeName === "NEW_PASSWORD_REQUIRED") {
    challenge = { session: answer.Session, name };
    showProblem("");
    showStep();
    $("new-password").focus();
  } else if (answer.ChallengeName) {
    showProblem(`This page does not support the sign-in step ${answer.ChallengeName}. Ask an administrator.`);
  } else {
    challenge = null;
    showStep();
    storeTokens(answer.AuthenticationResult, currentMark());
  }
}

onSubmit(form, submit);

function showTyped() {
  const type = $("show-password").checked ? "text" : "password";
  for (const id of ["password", "new-password", "new-password-again"]) $(id).type = type;
}

$("show-password").onchange = showTyped;

/** Shows the sign-in form on the start page. */
function showSignIn() {
  $("gate-form").hidden = false;
  $("name").focus();
}

const dialog = $("again");
let waitingAgain = false;

async function signInAgain() {
  waitingAgain = true;
  $("again-form").append(form);
  $("name").value = tokens.name;
  // Pending requests belong to this user, so no other user may sign in with this dialog.
  $("name").readOnly = true;
  openDialog(dialog);
  $("password").focus();
  await signedIn.promise;
  waitingAgain = false;
  dialog.close();
  announce("You are signed in again.");
}

// The user can close this dialog only by signing in or out.
// Pressing Escape twice may still close the dialog. The dialog then reopens.
dialog.oncancel = (event) => event.preventDefault();
dialog.onclose = () => waitingAgain && openDialog(dialog);
$("again-leave").onclick = signOut;

/** Ends the session in all tabs of this browser and in the user pool. */
export function signOut() {
  // Without localStorage, only tabs that are awake notice the sign-out.
  keep(meta("client-id"), Math.random(), "localStorage");
  channel.postMessage("out");
  return leave();
}

/** Ends this tab's session. Reloading the page removes everything that the user saw. */
async function leave() {
  const ended = tokens;
  tokens = null;
  waitingAgain = false;
  forget();
  if (ended?.refresh) {
    // The browser forgets the refresh token even if the user pool cannot revoke it.
    const revoked = ask("RevokeToken", { Token: ended.refresh }).catch(() => {});
    await Promise.race([revoked, pause(3000)]);
  }
  location.replace(document.baseURI);
}

/** Resumes the session of this or another tab, or shows the form. Each session change calls `listener(person)`. */
export function startSession(listener) {
  onChange = listener;
  tokens = recall("session");
  onChange(person());
  if (tokens) return;
  channel.postMessage("who?");
  setTimeout(() => tokens || showSignIn(), ANSWER);
}
