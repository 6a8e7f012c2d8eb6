/** Stores values in sessionStorage, in localStorage if they outlive the session, or in memory if both are unavailable. */
const memory = new Map();

export function keep(name, value, store = "sessionStorage") {
  memory.set(name, value);
  try {
    window[store].setItem(`cafe-${name}`, JSON.stringify(value));
  } catch {
    // If the store is disabled or full, the value is stored only in memory.
  }
}

export function recall(name, store = "sessionStorage") {
  // Another browser tab may have changed a value in localStorage.
  if (store === "sessionStorage" && memory.has(name)) return memory.get(name);
  try {
    return JSON.parse(window[store].getItem(`cafe-${name}`));
  } catch {
    return memory.get(name) ?? null;
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
