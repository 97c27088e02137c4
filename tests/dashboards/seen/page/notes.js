// What the panels say of themselves while they draw, for the checks: panel id -> {key: anything that JSON can hold}.
let notes = {};

export function note(id, key, value) {
  notes[id] = { ...notes[id], [key]: value };
}

export function forget() {
  notes = {};
}

export function noted() {
  return notes;
}
