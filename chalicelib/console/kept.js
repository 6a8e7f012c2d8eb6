/** What a reload of this tab shall find again. A browser that keeps nothing has it for as long as the page is open. */
const memory = new Map();

export function keep(name, value) {
  memory.set(name, value);
  try {
    sessionStorage.setItem(`cafe-${name}`, JSON.stringify(value));
  } catch {
    // Storage is switched off, or full: the memory has it.
  }
}

export function kept(name) {
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
    // There is nothing.
  }
}
