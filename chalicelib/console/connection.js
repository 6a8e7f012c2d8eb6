/**
 * Tracks whether the API can be reached. After a failed request, call `reportLost` and await `untilConnected`. The page
 * then polls the API, first after one second and then less often, until the API responds.
 */
const MOST_SECONDS = 15;
const PATIENCE_SECONDS = 10;

const listeners = [];
let waiting = [];
let state = "connected"; // or "lost", with a timer until the next try, or "asking"
let losses = 0;
let timer;

/** Calls `listener` with the seconds until the next try, 0 during a try, or null when the API can be reached. */
export const onConnection = (listener) => listeners.push(listener);

function become(next, seconds) {
  state = next;
  clearTimeout(timer);
  listeners.forEach((listener) => listener(seconds));
}

export function reportLost() {
  if (state !== "connected") return;
  wait();
}

function wait() {
  // The random factor spreads the retries of many pages that lost the same server.
  const seconds = Math.min(2 ** losses, MOST_SECONDS) * (0.8 + 0.4 * Math.random());
  losses += 1;
  become("lost", seconds);
  timer = setTimeout(retry, seconds * 1000);
}

/** Records that the API or S3 responded, even with an error. */
export function reportAnswer() {
  losses = 0;
  release();
}

function release() {
  if (state !== "connected") become("connected", null);
  const resolved = waiting;
  waiting = [];
  resolved.forEach((resolve) => resolve());
}

/** Resolves when a request is worth another try. */
export function untilConnected(signal) {
  return new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

/** Tries to reach the API now. */
export async function retry() {
  if (state !== "lost") return;
  become("asking", 0);
  try {
    await (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) })).json();
  } catch {
    // Any failure counts, including a response from another server.
    if (state === "asking") wait();
    return;
  }
  release();
}

addEventListener("offline", reportLost);
addEventListener("online", retry);
