/** Sends requests to the API, with tokens, retries, time limits and idempotency keys. */
import { pause, reportAnswer, reportLost, untilConnected } from "./connection.js";
import { serverTime } from "./format.js";
import { keep, recall } from "./kept.js";
import { renew, token } from "./sign-in.js";

const TRIES = 4;

/** An error of the API. `status` is 0 if it did not respond. `problems` lists invalid fields as `{ field, message }`. */
export class ApiError extends Error {
  constructor(status, message, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

/** Returns an error of the API. Throws any other error again, because it is a fault in this page. */
export function apiError(error) {
  if (error instanceof ApiError) return error;
  throw error;
}

/** Sends a GET request. Leaves out `parameters` without a value. A page of a CSV file is returned as `{ blob, next }`. */
export function get(path, parameters = {}, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  return request("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path, { signal });
}

/**
 * Sends a POST request. With a `key` (an Idempotency-Key), or `again` if repeating the request is safe, retries until
 * the API responds. Otherwise, a lost response causes an error with status 0.
 */
export const post = (path, body, { key, again = Boolean(key) } = {}) => request("POST", path, { body, key, again });

/** Sends a PATCH request with an Idempotency-Key, and retries until the API responds. */
export const patch = (path, body) => request("PATCH", path, { body, key: newKey() });

async function request(method, path, { body, key, signal, again = true }) {
  for (let tries = 1, renewed = false; ;) {
    let idToken, response, answer;
    try {
      idToken = await token();
      response = await send(method, path, body, key, idToken, signal, again);
      const { headers } = response;
      if (headers.get("content-type")?.startsWith("text/csv"))
        answer = { blob: await response.blob(), next: headers.get("x-next") };
      else answer = await response.json();
      reportAnswer();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!isConnection(error)) throw error;
      reportLost();
      if (!again) throw new ApiError(0, "The connection was lost before the server responded.");
      await untilConnected(signal);
      continue;
    }
    serverTime(response.headers.get("date"));
    if (response.ok) return answer;
    const { status } = response;
    if ((status === 401 || status === 403) && !renewed) {
      // The token may have expired, or the user's groups may have changed.
      renewed = true;
      if (await renew(idToken)) continue;
    }
    if ((status === 429 || status >= 500) && again && tries < TRIES) {
      await pause(2 ** tries * 250 * (0.5 + Math.random()), signal);
      tries += 1;
      continue;
    }
    // Errors from API Gateway itself use the lower-case key `message`.
    const message = answer.Message ?? answer.message ?? `The server responded with status ${status}. Try again.`;
    throw new ApiError(status, message, answer.Problems);
  }
}

function send(method, path, body, key, idToken, signal, again) {
  const headers = { Authorization: `Bearer ${idToken}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  // API Gateway may take 29 seconds. If retries follow, a shorter wait is enough.
  const patience = AbortSignal.timeout(again ? 15_000 : 30_000);
  return fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal: signal ? AbortSignal.any([signal, patience]) : patience,
  });
}

/**
 * Returns whether the error means that the API did not respond.
 * A SyntaxError means that the response was not JSON, for example because a Wi-Fi network returned its sign-in page.
 * Chromium throws an AbortError if the time limit is reached while the response is arriving.
 */
const isConnection = (error) =>
  error instanceof TypeError || error instanceof SyntaxError || ["TimeoutError", "AbortError"].includes(error.name);

const LETTERS = "0123456789abcdefghjkmnpqrstvwxyz";

/** Returns an Idempotency-Key. It becomes an order or report id, so its characters are easy to read aloud. */
function newKey() {
  const letters = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => LETTERS[byte % 32]);
  return letters.join("").replace(/(.{4})(?=.)/g, "$1-");
}

/**
 * Sends the content of a form with an Idempotency-Key. After a lost response, the same content reuses its key.
 * The key is saved under `name`, so it survives a page reload.
 */
export class Submission {
  #name;

  constructor(name) {
    this.#name = name;
  }

  async send(path, body) {
    const content = JSON.stringify(body);
    const last = recall(this.#name);
    const key = last?.content === content ? last.key : newKey();
    keep(this.#name, { content, key });
    const answer = await post(path, body, { key });
    keep(this.#name, null);
    return answer;
  }
}
