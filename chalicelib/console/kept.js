/** Stores values in sessionStorage or, if sessionStorage is unavailable, in memory. */
const memory = new Map();

export function keep(name, value) {
  memory.set(name, value);
  try {
    sessionStorage.setItem(`cafe-${name}`, JSON.stringify(value));
  } catch {
    // If sessionStorage is disabled or full, the value is stored only in memory.
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
    // If sessionStorage is disabled, there is nothing to clear.
  }
}
