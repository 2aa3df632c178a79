// A model's guesses: shown as guesses on images without a label, accepted by a key, and then labels
// that say where they came from.

const MARKS = {
  suggestion: ["sug", "This label came from an accepted suggestion"],
  import: ["imp", "This label was imported"],
  second: ["2nd", "This label came from a second reading"],
  self: ["2nd", "This label came from reading the image again"],
  adjudication: ["adj", "This label was decided where people disagreed"],
};

// What is guessed of an image that has no label: {c, share, text, said}, or null.
function guessOf(s, id) {
  const { suggestion, second } = factsOf(s, id);
  if (!suggestion || second || s.data.blind || shownLabel(s, id).state !== "none") return null;
  const c = s.classes.get(suggestion.class_id);
  if (!c) return null;
  const share = suggestion.confidence;
  const shown = share >= 0.995 ? ">0.99" : share.toFixed(2);
  return { c, share: shown, text: `${c.name} ${shown}`, said: `suggestion: ${c.name}, ${Math.floor(100 * share)} percent` };
}

// Each image gets the class that was guessed of it: one action, one undo.
function acceptGuesses(s) {
  const ids = chosenIds(s);
  if (!ids.length) return s.say("Select an image first.");
  if (unseen(s)) return s.say("This picture cannot be shown, so it gets no class. Skip it with S, or wait.");
  const guesses = ids.map((id) => [id, guessOf(s, id)]);
  const taken = guesses.filter(([, guess]) => guess);
  const labelled = ids.filter((id) => shownLabel(s, id).state !== "none").length;
  if (!taken.length) return s.say(`Nothing to accept: ${leftWords(labelled, ids.length - labelled)}.`);
  if (!actEach(s, taken.map(([id, { c }]) => ({ id, kind: "label", class_id: c.id })), "suggestion")) return;
  moveOn(s, ids);
  const left = leftWords(labelled, ids.length - labelled - taken.length);
  const what = ids.length === 1 ? `${baseName(nameFor(s, ids[0]))}: ${taken[0][1].c.name}, as suggested` : `${images(taken.length)} labelled as suggested`;
  s.say(left ? `${what}; left as they are: ${left}` : what);
}

function leftWords(labelled, without) {
  const parts = [];
  if (labelled) parts.push(`${number(labelled)} with a label already`);
  if (without) parts.push(`${number(without)} without a suggestion`);
  return parts.join(", ");
}

// A small word beside the label that says where it came from; "" for one that somebody gave.
function sourceMark(label) {
  return (label.state === "label" && MARKS[label.source]) || ["", ""];
}

function disputed(s, id) {
  return !s.data.blind && s.data.whose !== "mine" && !factsOf(s, id).second && !!(s.known.get(id) || {}).disputed;
}

// What stands over a picture: [class of the chip, short, in words].
function chipsOf(s, id) {
  const { tags, noted } = factsOf(s, id);
  const chips = [];
  if (isOut(s, id)) chips.push(["out", "excluded", "excluded: in no list, count or training"]);
  if (disputed(s, id)) chips.push(["dispute", "people disagree", "people disagree about this image"]);
  if (tags.length) chips.push(["worded", tags.length > 1 ? `${tags[0]} +${tags.length - 1}` : tags[0], `tags: ${tags.join(", ")}`]);
  if (noted) chips.push(["noted", "note", "has a note"]);
  return chips;
}

function chipNodes(chips) {
  return chips.map(([className, text, title]) => el("span", `chip ${className}`, { text, title }));
}

// One by one: guess, tags and marks in the corner of the picture.
function buildBeside(s) {
  s.ui.guess = button("", "A", "Accept this suggestion (a or Enter)", () => acceptGuesses(s));
  s.ui.guess.classList.add("guess");
  s.ui.guessWord = s.ui.guess.firstChild;
  s.ui.chips = el("span", "chipline");
  s.ui.beside = el("div", "beside", { id: `beside-${s.client}` }, s.ui.guess, s.ui.chips);
  s.ui.frame.setAttribute("aria-describedby", s.ui.beside.id);
  s.viewer.root.append(s.ui.beside);
}

function paintBeside(s, id) {
  const guess = id === undefined ? null : guessOf(s, id);
  s.ui.guess.hidden = !guess;
  if (guess) {
    s.ui.guess.style.setProperty("--c", guess.c.color);
    setText(s.ui.guessWord, `guess ${guess.text}`);
  }
  const chips = id === undefined ? [] : chipsOf(s, id);
  const [mark, title] = id === undefined ? ["", ""] : sourceMark(shownLabel(s, id));
  if (mark) chips.unshift(["from", title, title]);
  const sign = JSON.stringify(chips);
  if (s.besideSign === sign) return;
  s.besideSign = sign;
  s.ui.chips.replaceChildren(...chipNodes(chips));
}
