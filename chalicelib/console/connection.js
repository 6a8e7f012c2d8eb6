/**
 * Tracks whether the API can be reached. After a failed request, call `reportLost` and await `untilConnected`.
 * The page then polls the API until it responds, first after one second and then at longer intervals.
 */
const MOST_SECONDS = 15;
const PATIENCE_SECONDS = 10;

let back = Promise.withResolvers();
// The state is "connected", "lost" while waiting for the next attempt to connect, or "asking" during an attempt.
let state = "connected";
let losses = 0;
let timer, listener;

/** Calls `given` with the seconds until the next attempt, 0 during an attempt, or null after reconnecting. */
export const onConnection = (given) => (listener = given);

function become(next, seconds) {
  state = next;
  clearTimeout(timer);
  listener?.(seconds);
}

export function reportLost() {
  if (state === "connected") wait();
}

function wait() {
  // The random factor spreads out the retries when many pages lose the connection at once.
  const seconds = Math.min(2 ** losses, MOST_SECONDS) * (0.8 + 0.4 * Math.random());
  losses += 1;
  become("lost", seconds);
  timer = setTimeout(retry, seconds * 1000);
}

/** Records that the API or S3 responded. An error response also counts as a response. */
export function reportAnswer() {
  losses = 0;
  release();
}

function release() {
  if (state !== "connected") become("connected", null);
  back.resolve();
  back = Promise.withResolvers();
}

const unlessAborted = (signal, start) =>
  new Promise((resolve, reject) => {
    start(resolve);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });

/** Returns a promise that resolves when the connection is back. The caller can then retry its request. */
export const untilConnected = (signal) => unlessAborted(signal, (resolve) => back.promise.then(resolve));

export const pause = (milliseconds, signal) => unlessAborted(signal, (resolve) => setTimeout(resolve, milliseconds));

/** Checks immediately whether the API can be reached. */
export async function retry() {
  if (state !== "lost") return;
  become("asking", 0);
  try {
    await (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) })).json();
  } catch {
    // A response that is not JSON cannot be from the API, so it also counts as a failure.
    if (state === "asking") wait();
    return;
  }
  release();
}

addEventListener("offline", reportLost);
addEventListener("online", retry);
