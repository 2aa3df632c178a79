// The history of one image: who said what and when, from what, and putting an earlier label back.

const WHENCE = {
  bulk: "with others", review: "in Review", suggestion: "accepted a suggestion", import: "from a file",
  second: "second reading", self: "read again", adjudication: "decided between people",
};
const ACTS = {
  undo: "took back", redo: "brought back", note: "wrote:", tagged: "put on the tag", untagged: "took off the tag",
  excluded: "excluded", restored: "restored", missing: "file missing", changed: "file changed", found: "file found",
  moved: "file moved", grouped: "put into group", apart: "told apart", fine: "called fine",
};

async function fetchStory(s, id) {
  const own = factsOf(s, id).second || s.data.whose === "mine" ? { own: "1" } : {}; // not told what others said
  return askServer("/api/history", { image: id, annotator: s.data.annotator || "", ...own });
}

function whenOf(at) {
  return new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

async function openStory(s) {
  const [id] = chosenIds(s);
  if (!id) return s.say("Select an image first.");
  if (factsOf(s, id).second === "self") return s.say("You are reading this image once more: what you said before is not shown.");
  closePopup(s, false);
  if (!s.story) {
    s.story = el("dialog", "sheet story", { "aria-label": "History of the image", tabindex: "-1" });
    s.story.addEventListener("click", (e) => e.target === s.story && s.story.close());
    s.story.addEventListener("keydown", (e) => e.stopPropagation());
    s.story.addEventListener("close", () => takeKeyboard(s));
  }
  s.host.append(s.story);
  fillStory(s, id, el("p", "quiet", { text: "Fetching…" }));
  s.story.showModal();
  try {
    const { entries } = await fetchStory(s, id);
    const list = el("ol", "", {}, ...entries.map((entry) => storyEntry(s, id, entry)));
    fillStory(s, id, entries.length ? list : el("p", "quiet", { text: "Nobody has said anything about this image yet." }));
  } catch (error) {
    fillStory(s, id, el("p", "quiet", { text: `The history cannot be shown now. ${error instanceof TypeError ? "" : error.message}` }));
  }
}

function fillStory(s, id, body) {
  const close = el("button", "tool", { type: "button", text: "Close", onclick: () => s.story.close() });
  s.story.replaceChildren(el("h3", "", { text: baseName(nameFor(s, id)) }), body, close);
}

function sayingWord(saying) {
  if (!saying || saying.kind === "clear") return "no label";
  if (saying.kind === "label") return saying.name || "a class of the past";
  return (OTHERS.find((o) => o.kind === saying.kind) || { word: saying.kind }).word;
}

function storyEntry(s, id, entry) {
  const { before, after } = entry;
  const what = el("div", "what");
  if (after) {
    if (ACTS[entry.kind]) what.append(`${ACTS[entry.kind]}: `);
    const was = sayingWord(before), is = sayingWord(after);
    what.append(el("b", "", { text: is }));
    if (was !== is && before.kind !== "clear") what.append(el("span", "quiet", { text: ` from ${was}` }));
    if (WHENCE[entry.source]) what.append(el("span", "quiet", { text: ` · ${WHENCE[entry.source]}` }));
    if (entry.undone) what.append(el("span", "chip", { text: "taken back" }));
    if (entry.current) what.append(el("span", "chip now2", { text: "counts now" }));
  } else what.append(`${ACTS[entry.kind] || entry.kind} `, el(entry.kind === "note" ? "span" : "b", "said", { text: entry.text }));
  const node = el("li", entry.undone ? "undone" : "", {}, el("div", "who", {}, el("b", "", { text: entry.who }), el("span", "quiet", { text: whenOf(entry.at) })), what);
  const again = after && restorable(s, id, after);
  if (again) node.append(el("button", "tool", { type: "button", text: "Restore this", "aria-label": `Restore ${sayingWord(after)}`, onclick: () => restore(s, id, after) }));
  return node;
}

// An earlier label can be put back unless it is the one shown, or its class is gone.
function restorable(s, id, { kind, class_id }) {
  const now = shownLabel(s, id);
  const wanted = stateOf(kind, class_id);
  if (now.state === wanted.state && now.class_id === wanted.class_id) return false;
  return kind !== "label" || s.classes.has(class_id);
}

function restore(s, id, { kind, class_id }) {
  if (!actEach(s, [{ id, kind, class_id: kind === "label" ? class_id : null }])) return;
  s.story.close();
  s.paint([id]);
  sendNow(s);
  s.say(`${baseName(nameFor(s, id))}: ${kind === "clear" ? "no label" : labelWord(s, stateOf(kind, class_id))}, as before`);
}
