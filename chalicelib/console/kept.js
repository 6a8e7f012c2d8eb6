/** Stores values across reloads or, if sessionStorage is unavailable, until the page closes. */
const memory = new Map();

export function keep(name, value) {
  memory.set(name, value);
  try {
    sessionStorage.setItem(`cafe-${name}`, JSON.stringify(value));
  } catch {
    // If sessionStorage is disabled or full, only the copy in memory remains.
  }
}

export function recall(name) {
  if (memory.has(name)) return memory.get(name);
  try {
    return JSON.parse(sessionStorage.getItem(`cafe-${name}`));
  } catch {
    return null;
  }
}

export function forget() {
  memory.clear();
  try {
    sessionStorage.clear();
  } catch {
    // If sessionStorage is disabled, it contains nothing to clear.
  }
}
