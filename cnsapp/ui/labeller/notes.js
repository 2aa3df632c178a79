// Notes and tags. What is typed is kept in this browser until the server has it, like the labels.

const DRAFT = "cnsapp.draft";
const LONGEST_TAG = 60;
const LONGEST_NOTE = 2000;
const NOTES_SHOWN = 5;

function sendNotes(s, path, ids, kind, text) {
  const events = ids.map((id) => ({ client: s.client, seq: ++s.seq, image_id: id, sha: shaOf(s, id), kind, text }));
  addToOutbox(s.notebox, s.data.project_id, s.data.annotator, events, { path });
}

// The field's images, and who writes; null (and a word why) when there is no such.
function noteTargets(s) {
  const ids = chosenIds(s);
  if (!ids.length) return s.say("Select an image first."), null;
  if (!s.data.annotator) return s.warn("Say first who is labelling, in the sidebar: notes and tags are kept with a name."), null;
  return ids;
}

const whatOf = (s, ids) => (ids.length === 1 ? baseName(nameFor(s, ids[0])) : images(ids.length));

// notes ------------------------------------------------------------------------------------------

function openNote(s) {
  const ids = noteTargets(s);
  if (!ids) return;
  const what = whatOf(s, ids);
  const text = el("textarea", "", { rows: "4", maxlength: String(LONGEST_NOTE), "aria-label": `Note on ${what}`, placeholder: "What is to be said of it?" });
  const draft = readDraft(ids);
  text.value = draft;
  const earlier = el("div", "earlier");
  const save = () => {
    if (!text.value.trim()) return closePopup(s);
    sendNotes(s, "/api/notes", ids, "note", text.value);
    for (const id of ids) changeFacts(s, id, { noted: true });
    keepDraft(null);
    closePopup(s);
    s.paint(ids);
    s.say(`Note written: ${what}`);
  };
  text.addEventListener("input", () => keepDraft({ ids, text: text.value }));
  text.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) e.preventDefault(), save();
  });
  const done = button("Save note", "Enter", "Save this note", save);
  done.classList.add("primary");
  openPopup(s, "note", `Note on ${what}`, el("div", "head", {}, el("b", "", { text: `Note on ${what}` }),
    el("span", "quiet", { text: draft ? "as you left it" : "" })), text, earlier,
  el("div", "foot2", {}, el("p", "hint", { text: "Shift Enter: new line · Esc closes, the text stays" }), done));
  text.focus();
  if (ids.length === 1 && factsOf(s, ids[0]).noted) showEarlier(s, ids[0], earlier);
}

async function showEarlier(s, id, place) {
  try {
    const { entries } = await fetchStory(s, id);
    const notes = entries.filter((entry) => entry.kind === "note").slice(0, NOTES_SHOWN);
    place.replaceChildren(...notes.map((note) => el("p", "", {}, el("span", "quiet", { text: `${note.who}, ${whenOf(note.at)}: ` }), note.text)));
  } catch (error) {
    place.replaceChildren(el("p", "quiet", { text: "Earlier notes cannot be shown now." }));
  }
}

function readDraft(ids) {
  try {
    const draft = JSON.parse(localStorage.getItem(DRAFT) || "null");
    return draft && draft.ids.join() === ids.join() ? draft.text : "";
  } catch (error) {
    return "";
  }
}

function keepDraft(draft) {
  try {
    if (draft && draft.text) localStorage.setItem(DRAFT, JSON.stringify(draft));
    else localStorage.removeItem(DRAFT);
  } catch (error) { /* kept on the screen only */ }
}

// tags -------------------------------------------------------------------------------------------

function openTags(s) {
  const ids = noteTargets(s);
  if (!ids) return;
  const what = whatOf(s, ids);
  const field = { s, ids, known: s.tagCounts || [], chips: el("div", "tagchips", { role: "group", "aria-label": "Tags on it" }) };
  field.box = comboBox("Tag", "A word, such as artefact", (text) => tagOptions(field, text), (text) => addTag(field, text));
  field.box.input.setAttribute("maxlength", String(LONGEST_TAG));
  openPopup(s, "tags", `Tags of ${what}`, el("div", "head", {}, el("b", "", { text: `Tags of ${what}` })), field.chips, field.box.root,
    el("p", "hint", { text: "Enter puts the tag on · press a tag above to take it off · Esc closes" }));
  paintTagChips(field);
  field.box.fill();
  field.box.input.focus();
  askServer("/api/tags", { project: s.data.project_id }).then(({ tags }) => {
    s.tagCounts = field.known = tags;
    if (s.popup && field.box.root.isConnected) field.box.fill();
  }, () => {}); // a new tag can be typed all the same
}

// Existing tags that hold the text; what is typed is marked first, unless it is one of them.
function tagOptions(field, text) {
  const wanted = folded(text).trim();
  const found = field.known.filter(({ tag }) => folded(tag).includes(wanted)).slice(0, 8);
  const exact = found.findIndex(({ tag }) => folded(tag) === wanted);
  const options = found.map(({ tag, n }) => ({
    node: el("div", "option", {}, el("span", "name", { text: tag }), el("span", "quiet", { text: number(n) })),
    pick: () => addTag(field, tag),
  }));
  if (wanted && exact < 0) {
    const node = el("div", "option", {}, el("span", "name", { text: text.trim() }), el("span", "quiet", { text: "new tag" }));
    options.unshift({ node, pick: () => addTag(field, text) });
  }
  return { options, first: Math.max(0, exact) };
}

function addTag(field, text) {
  const { s, ids, box } = field;
  const tag = text.normalize("NFC").trim().split(/\s+/).join(" ");
  if (!tag) return closePopup(s);
  const lacking = ids.filter((id) => !factsOf(s, id).tags.some((one) => folded(one) === folded(tag)));
  box.input.value = "";
  changeTags(field, lacking, "tagged", tag);
  box.fill();
}

function changeTags(field, ids, kind, tag) {
  const { s } = field;
  if (!ids.length) return s.say(`Tag “${tag}” is on it already.`);
  sendNotes(s, "/api/tags", ids, kind, tag);
  for (const id of ids) {
    const rest = factsOf(s, id).tags.filter((one) => one !== tag);
    changeFacts(s, id, { tags: kind === "tagged" ? [...rest, tag].sort() : rest });
  }
  paintTagChips(field);
  s.paint(ids);
  s.say(`Tag “${tag}” ${kind === "tagged" ? "put on" : "taken off"} ${whatOf(s, ids)}`);
}

function paintTagChips(field) {
  const { s, ids, chips } = field;
  const counts = new Map();
  for (const id of ids) for (const tag of factsOf(s, id).tags) counts.set(tag, (counts.get(tag) || 0) + 1);
  chips.hidden = !counts.size;
  chips.replaceChildren(...[...counts].map(([tag, n]) => {
    const text = n === ids.length ? tag : `${tag} (${number(n)} of ${number(ids.length)})`;
    const node = button(text, "×", `Take “${tag}” off`, () => {
      changeTags(field, ids.filter((id) => factsOf(s, id).tags.includes(tag)), "untagged", tag);
      field.box.input.focus();
    });
    return node;
  }));
}

// what the server says ----------------------------------------------------------------------------

function changeFacts(s, id, change) {
  s.facts.set(id, { ...factsOf(s, id), ...change, touched: Date.now() });
}

function onNoteAnswer(s, answer) {
  if (answer && answer.project === s.data.project_id) {
    const waits = new Set(s.notebox.items.map(({ event }) => event.image_id));
    const told = answer.images.filter(({ id }) => !waits.has(id) && !factsOf(s, id).second);
    for (const { id, tags, noted } of told) changeFacts(s, id, { tags, noted });
    if (answer.rejected.length) s.warn(`A note or tag was not stored. ${answer.rejected[0].reason}`);
    s.paint(told.map(({ id }) => id));
  }
  paintSaved(s);
}
