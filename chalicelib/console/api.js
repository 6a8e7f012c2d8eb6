/** The API: one function for each of its ways to be asked, and what is common to all of them. */
import { back, found, lost } from "./connection.js";
import { serverTime } from "./format.js";
import { keep, kept } from "./kept.js";
import { renew, token } from "./sign-in.js";

// The gateway gives up after 29 seconds. What may be asked again is not waited for so long: hardly any answer takes it.
const PATIENCE_SECONDS = { again: 15, once: 30 };
const TRIES = 4;

/**
 * The API's answer that it cannot or will not do something. `status` is HTTP's. `problems` names the fields that are
 * wrong, each as `{ field, message }`.
 */
export class ApiError extends Error {
  constructor(status, message, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

/** GET, with the query `parameters` that have a value. */
export function get(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  return request("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path, { signal });
}

/**
 * POST. With an Idempotency-Key `key`, or where `again` says that a second time does no harm, it is sent again until
 * an answer comes. Otherwise a lost answer is an error with the status 0.
 */
export const post = (path, body, { key, again = Boolean(key) } = {}) => request("POST", path, { body, key, again });

async function request(method, path, { body, key, signal, again = true }) {
  for (let tries = 1, renewed = false; ;) {
    let idToken, response, answer;
    try {
      idToken = await token();
      response = await send(method, path, body, key, idToken, signal, again);
      answer = await response.json();
      found();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!isConnection(error)) throw error;
      lost();
      if (!again) throw new ApiError(0, "The connection was lost before an answer came.");
      await back(signal);
      continue;
    }
    serverTime(response.headers.get("date"));
    if (response.ok) return answer;
    const { status } = response;
    if ((status === 401 || status === 403) && !renewed) {
      // It may be that the token has ended, or was made before the groups changed: one more try with a new one.
      renewed = true;
      if (await renew(idToken)) continue;
    }
    if ((status === 429 || status >= 500) && again && tries < TRIES) {
      await pause(2 ** tries * 250 * (0.5 + Math.random()), signal);
      tries += 1;
      continue;
    }
    // The gateway has its own shape, with a small m.
    const message = answer.Message ?? answer.message ?? `The server answered with ${status}.`;
    throw new ApiError(status, message, answer.Problems);
  }
}

function send(method, path, body, key, idToken, signal, again) {
  const headers = { Authorization: `Bearer ${idToken}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  const patience = AbortSignal.timeout(PATIENCE_SECONDS[again ? "again" : "once"] * 1000);
  return fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal: signal ? AbortSignal.any([signal, patience]) : patience,
  });
}

/**
 * Whether no answer came, or one that is not the API's: a network that wants a sign-in of its own gives a page. An
 * answer that is cut off by the time limit is an AbortError in Chromium.
 */
const isConnection = (error) =>
  error instanceof TypeError || error instanceof SyntaxError || ["TimeoutError", "AbortError"].includes(error.name);

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

const LETTERS = "0123456789abcdefghjkmnpqrstvwxyz";

/** A new Idempotency-Key, which becomes the id of what is made: short enough to be read aloud. */
function newKey() {
  const letters = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => LETTERS[byte % 32]);
  return letters.join("").replace(/(.{4})(?=.)/g, "$1-");
}

/**
 * A form's requests. The same content sent again, because no answer came, has the same Idempotency-Key and is the same
 * request; once there was an answer, the next one is a new one. `name` keeps the key where a reload finds it.
 */
export class Submission {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(path, body) {
    const content = JSON.stringify(body);
    const last = kept(this.#name);
    const key = last?.content === content ? last.key : newKey();
    keep(this.#name, { content, key });
    const answer = await post(path, body, { key });
    keep(this.#name, null);
    return answer;
  }
}
