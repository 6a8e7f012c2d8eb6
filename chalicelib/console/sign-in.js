/**
 * Who is signed in. The page asks the user pool itself; tokens are in memory and in sessionStorage, and nowhere else.
 *
 * `token()` is all that requests need: it waits for somebody to sign in, and refreshes a token five minutes before
 * its end. Where the refresh token has ended too, a dialog asks for the password, and whoever waits goes on after it.
 */
import { config } from "./config.js";
import { $, announce, onSubmit, openDialog } from "./dom.js";
import { forget, keep, kept } from "./kept.js";

const EARLY = 5 * 60_000;

let tokens = null; // { id, refresh, endsAt, name, groups }
// A token that was made because the API refused the one before it. Where it is refused too, that is meant.
let latest = null;
let refreshing = null;
let whenSignedIn = [];
let changed = () => {};

const BUSY = ["TooManyRequestsException", "LimitExceededException", "InternalErrorException"];

/** The user pool's refusal; `code` is its name of it. */
class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function ask(action, body) {
  const response = await fetch(config.cognitoEndpoint, {
    method: "POST",
    headers: {
      "Content-Type": "application/x-amz-json-1.1",
      "X-Amz-Target": `AWSCognitoIdentityProviderService.${action}`,
    },
    body: JSON.stringify({ ClientId: config.clientId, ...body }),
    cache: "no-store",
    credentials: "omit",
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new Refused((answer.__type ?? `${response.status}`).split("#").pop(), answer.message ?? answer.Message ?? "");
}

function claims(jwt) {
  const bytes = Uint8Array.from(atob(jwt.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (c) =>
    c.charCodeAt(0),
  );
  return JSON.parse(new TextDecoder().decode(bytes));
}

function take(result) {
  const said = claims(result.IdToken);
  tokens = {
    id: result.IdToken,
    // A refresh gives none, unless the pool rotates them.
    refresh: result.RefreshToken ?? tokens?.refresh,
    endsAt: Date.now() + result.ExpiresIn * 1000,
    name: said["cognito:username"],
    groups: said["cognito:groups"] ?? [],
  };
  keep("session", tokens);
  changed(person());
  const resolved = whenSignedIn;
  whenSignedIn = [];
  resolved.forEach((resolve) => resolve());
}

/** `{ name, groups, isManager }`, or null while nobody is signed in. */
export function person() {
  if (!tokens) return null;
  const { name, groups } = tokens;
  return { name, groups, isManager: groups.includes("managers") };
}

const signedIn = () => new Promise((resolve) => whenSignedIn.push(resolve));

/** An id token that is good for some minutes. Throws a TypeError where the user pool cannot be reached. */
export async function token() {
  if (!tokens) await signedIn();
  if (tokens.endsAt - Date.now() < EARLY) await refresh();
  return tokens.id;
}

/** The API refused `stale`: gets another token, or says false where that would change nothing. */
export async function renew(stale) {
  if (tokens?.id === stale) {
    if (stale === latest) return false;
    await refresh();
    latest = tokens?.id;
  }
  return true;
}

/** New tokens, with the groups of now. Throws a TypeError where the user pool cannot be reached, or is too busy. */
export function refresh() {
  refreshing ??= (async () => {
    try {
      const parameters = { REFRESH_TOKEN: tokens.refresh };
      const answer = await ask("InitiateAuth", { AuthFlow: "REFRESH_TOKEN_AUTH", AuthParameters: parameters });
      // Meanwhile the person may have signed out.
      if (tokens) take(answer.AuthenticationResult);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (BUSY.includes(error.code)) throw new TypeError(error.message);
      await signInAgain();
    }
  })().finally(() => (refreshing = null));
  return refreshing;
}

// --- The form, at the gate or in the dialog --------------------------------------------------------------------------

const form = $("sign-in");
const problem = $("sign-in-problem");
let challenge = null; // { session, name } while a new password is due

const WORDS = {
  NotAuthorizedException: "The name or the password is wrong.",
  UserNotFoundException: "The name or the password is wrong.",
  PasswordResetRequiredException: "This password has to be changed: ask whoever runs the back office for a new one.",
  UserNotConfirmedException: "This account is not confirmed yet: ask whoever runs the back office.",
  TooManyRequestsException: "Too many people try at once: wait a moment.",
  LimitExceededException: "Too many tries: wait a moment.",
};

function words(error) {
  if (!(error instanceof Refused)) return "No connection. What you typed is still here: try again in a moment.";
  // The pool has one name for several things, and says which.
  const plain = error.code !== "NotAuthorizedException" || /^Incorrect/.test(error.message);
  return (plain && WORDS[error.code]) || error.message || "The user pool refused, and gave no reason.";
}

function tell(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

function showStep() {
  $("sign-in-credentials").hidden = Boolean(challenge);
  $("sign-in-new").hidden = !challenge;
  form.querySelector("button.primary").textContent = challenge ? "Keep this password" : "Sign in";
}

async function answerOf(fields) {
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
  if (!first.value || !second.value) {
    tell("Both fields are needed.");
    (first.value ? second : first).focus();
    return;
  }
  if (challenge && first.value !== second.value) {
    tell("The two new passwords are not the same.");
    second.focus();
    return;
  }
  let name, answer;
  try {
    [name, answer] = await answerOf(fields);
  } catch (error) {
    if (challenge && error.code === "NotAuthorizedException") {
      challenge = null;
      showStep();
      tell("That took too long: sign in once more.");
    } else {
      tell(words(error));
    }
    (challenge ? $("new-password") : $("password")).select();
    return;
  }
  if (answer.ChallengeName === "NEW_PASSWORD_REQUIRED") {
    challenge = { session: answer.Session, name };
    tell("");
    showStep();
    $("new-password").focus();
  } else if (answer.ChallengeName) {
    tell(`The user pool asks for ${answer.ChallengeName}, which this page does not know.`);
  } else {
    challenge = null;
    form.reset();
    showTyped();
    tell("");
    showStep();
    take(answer.AuthenticationResult);
  }
}

onSubmit(form, submit);

function showTyped() {
  const type = $("show-password").checked ? "text" : "password";
  for (const id of ["password", "new-password", "new-password-again"]) $(id).type = type;
}

$("show-password").addEventListener("change", showTyped);

/** Nobody is signed in: the form is all there is. */
function atTheGate() {
  $("gate-form").hidden = false;
  $("name").focus();
}

let waitingAgain = false;

async function signInAgain() {
  const dialog = $("again");
  waitingAgain = true;
  $("again-form").append(form);
  $("name").value = tokens.name;
  // What waits is this person's, and shall not go out in another one's name.
  $("name").readOnly = true;
  openDialog(dialog);
  $("password").focus();
  await signedIn();
  waitingAgain = false;
  dialog.close();
  announce("You are signed in again.");
}

// It is left by signing in or out. A browser may let Escape close it all the same.
$("again").addEventListener("cancel", (event) => event.preventDefault());
$("again").addEventListener("close", () => waitingAgain && openDialog($("again")));
$("again-leave").addEventListener("click", signOut);

/** Ends the session here and in the user pool. The page starts anew, with nothing of what this person saw. */
export async function signOut() {
  const ended = tokens;
  tokens = null;
  waitingAgain = false;
  forget();
  if (ended?.refresh) {
    try {
      await Promise.race([
        ask("RevokeToken", { Token: ended.refresh }),
        new Promise((resolve) => setTimeout(resolve, 3000)),
      ]);
    } catch {
      // Without a connection, or with a token that has ended by itself, there is no more to do: it is forgotten here.
    }
  }
  location.replace(document.baseURI);
}

/** Goes on with the session of before a reload, or asks for a name and a password; `listener(person)` is told. */
export function startSession(listener) {
  changed = listener;
  tokens = kept("session");
  changed(person());
  if (!tokens) atTheGate();
}
