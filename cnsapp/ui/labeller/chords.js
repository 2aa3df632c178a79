// Keys of classes: one key, or two pressed one after the other (first the system, then the organ).

const CHORD_TIME = 3000; // ms that the first key waits for the second

function takeKeys(s, classes) {
  s.keys = new Map(); // one key -> class
  s.chords = new Map(); // first key -> (second key -> class)
  for (const c of classes) {
    const [first, second] = [...(c.hotkey || "").toLowerCase()];
    if (!first) continue;
    if (!second) s.keys.set(first, c);
    else s.chords.set(first, (s.chords.get(first) || new Map()).set(second, c));
  }
  endChord(s);
}

// The letter or digit of a press, also of the digit row of keyboards that need Shift for it.
function pressed(e) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(e.code);
  return digit ? [e.key.toLowerCase(), digit[1]] : [e.key.toLowerCase()];
}

function findPressed(map, e) {
  for (const key of pressed(e)) if (map.has(key)) return map.get(key);
  return null;
}

function startChord(s, e) {
  const seconds = findPressed(s.chords, e);
  if (!seconds) return false;
  const first = pressed(e).find((key) => s.chords.has(key));
  s.chord = { first, seconds, timer: setTimeout(() => cancelChord(s), CHORD_TIME) };
  paintChord(s);
  s.say(`${chordWords(first, seconds)} · Esc: none`);
  return true;
}

function chordWords(first, seconds) {
  const classes = [...seconds.entries()];
  const parents = new Set(classes.map(([, c]) => c.parent || ""));
  const [parent] = parents;
  const head = parents.size === 1 && parent ? `${first.toUpperCase()} ${parent}` : first.toUpperCase();
  return `${head}: ${classes.map(([key, c]) => `${key.toUpperCase()} ${c.name}`).join(" · ")}`;
}

// The second press. Whatever it is, it means nothing else: a slip must not label or skip.
function endChordWith(s, e) {
  if (["Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "Dead"].includes(e.key)) return;
  if (e.repeat) return; // the first key is still held down
  const { first, seconds } = s.chord;
  const found = findPressed(seconds, e);
  endChord(s);
  if (found) s.label("label", found.id);
  else if (e.key === "Escape") s.say(`${first.toUpperCase()} taken back: nothing was labelled.`);
  else s.say(`No class has the keys ${first.toUpperCase()} ${e.key.length === 1 ? e.key.toUpperCase() : e.key}: nothing was labelled.`);
}

function cancelChord(s) {
  const { first } = s.chord;
  endChord(s);
  s.say(`${first.toUpperCase()} waited for a second key: nothing was labelled.`);
}

function endChord(s) {
  if (!s.chord) return;
  clearTimeout(s.chord.timer);
  s.chord = null;
  paintChord(s);
}

// The classes that the second key can mean stand out; only class names change, no layout.
function paintChord(s) {
  if (!s.ui || !s.ui.choices) return;
  const possible = new Set(s.chord ? [...s.chord.seconds.values()].map((c) => c.id) : []);
  for (const node of [s.ui.panel, s.ui.bar]) node.classList.toggle("choosing", !!s.chord);
  for (const [id, node] of s.ui.choices) node.classList.toggle("possible", possible.has(id));
}

const keyText = (hotkey) => [...(hotkey || "").toUpperCase()].join(" ");
