/** Values that survive a reload of this tab. Without sessionStorage they last until the page closes. */
const memory = new Map();

export function keep(name, value) {
  memory.set(name, value);
  try {
    sessionStorage.setItem(`cafe-${name}`, JSON.stringify(value));
  } catch {
    // The storage is disabled or full. The copy in memory remains.
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
    // The storage is disabled, so nothing is in it.
  }
}
