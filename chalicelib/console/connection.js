/**
 * Whether the API can be reached. Who finds that it cannot calls `lost` and waits for `back`; from then on the page
 * asks by itself, first after a second and then less and less often, until an answer comes.
 */
const MOST_SECONDS = 15;
const PATIENCE_SECONDS = 10;

const listeners = [];
let waiting = [];
let state = "there"; // or "lost", with a timer until the next try, or "asking"
let losses = 0;
let timer;

/** `listener(seconds)` is told how long it is until the next try, 0 during one, or null once there is a connection. */
export const onConnection = (listener) => listeners.push(listener);

function become(next, seconds) {
  state = next;
  clearTimeout(timer);
  listeners.forEach((listener) => listener(seconds));
}

export function lost() {
  if (state !== "there") return;
  wait();
}

function wait() {
  // Many pages that lost the same server shall not all come back in the same moment.
  const seconds = Math.min(2 ** losses, MOST_SECONDS) * (0.8 + 0.4 * Math.random());
  losses += 1;
  become("lost", seconds);
  timer = setTimeout(retry, seconds * 1000);
}

/** An answer came, whatever it says. */
export function found() {
  losses = 0;
  release();
}

function release() {
  if (state !== "there") become("there", null);
  const resolved = waiting;
  waiting = [];
  resolved.forEach((resolve) => resolve());
}

/** Resolves once it is worth trying again. */
export function back(signal) {
  return new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

/** Asks for the connection now. */
export async function retry() {
  if (state !== "lost") return;
  become("asking", 0);
  try {
    await (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) })).json();
  } catch {
    // There is no answer of the API, whatever the reason.
    if (state === "asking") wait();
    return;
  }
  release();
}

addEventListener("offline", lost);
addEventListener("online", retry);
