/**
 * Tracks whether the API can be reached. After a failed request, call `reportLost` and await `untilConnected`.
 * The page then polls the API until it responds, first after one second and then less often.
 */
const MOST_SECONDS = 15;
const PATIENCE_SECONDS = 10;

const listeners = [];
let waiting = [];
let state = "connected"; // "connected", or "lost" between tries, or "asking" during a try
let losses = 0;
let timer;

/** Calls `listener` with the seconds until the next try, 0 during a try, or null once the API can be reached. */
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
  // The random factor spreads out the retries when many pages lose the connection at once.
  const seconds = Math.min(2 ** losses, MOST_SECONDS) * (0.8 + 0.4 * Math.random());
  losses += 1;
  become("lost", seconds);
  timer = setTimeout(retry, seconds * 1000);
}

/** Records that the API or S3 responded, even if the response was an error. */
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

/** Resolves when a failed request is worth retrying. */
export function untilConnected(signal) {
  return new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

/** Tries to reach the API immediately. */
export async function retry() {
  if (state !== "lost") return;
  become("asking", 0);
  try {
    await (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) })).json();
  } catch {
    // A response that is not JSON is also a failure, because another server must have sent it.
    if (state === "asking") wait();
    return;
  }
  release();
}

addEventListener("offline", reportLost);
addEventListener("online", retry);
