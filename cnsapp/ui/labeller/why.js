// Beside the large picture of Review: what the model says of the image, what happened to it, and
// which labelled images look alike. What it is called comes from the screen's own state, all else
// from the server, which decides what this reader may see.

const SETTLE = 60; // ms: whoever runs through the images asks for none of them

function buildWhy(s) {
  const w = (s.why = { sign: "", facts: new Map(), asked: new Map(), out: new Map(), turns: new Map(), taken: [], since: 0, shown: 0, ui: {}, map: newMapState() });
  const part = (name, title, ...body) => el("section", name, { "aria-label": title }, el("h4", "", { text: title }), ...body);
  const { ui } = w;
  ui.said = el("div", "saying2");
  ui.bars = el("div", "bars", { role: "list", "aria-label": "Probability of every class" });
  ui.how = el("p", "quiet");
  ui.near = el("div", "nearest");
  ui.nearNote = el("p", "quiet");
  ui.story = el("ol", "");
  ui.all = button("All", "⇧H", "The whole history; restore an earlier label (Shift h)", () => openStory(s));
  ui.meta = el("dl", "");
  ui.problem = el("div", "problem2", { role: "alert", hidden: "" });
  ui.exclude = button("Exclude", "⇧X", "Out of lists, counts and training, and back in (Shift x)", () => toggleExcluded(s));
  ui.acts = el("div", "acts", { role: "group", "aria-label": "What may be said of the image" },
    button("Unsure", "X", "Mark as unsure (x)", () => s.label("unsure", null)), button("Note", "N", "Write a note (n)", () => openNote(s)),
    ui.exclude, button("Undo", "U", "Take back your last action (u)", () => takeLast(s, "undo")));
  ui.story.classList.add("shortstory");
  ui.metaPart = part("meta", "From the lab's tables", ui.meta);
  ui.body = el("div", "whybody", { tabindex: "-1" }, ui.said, ui.problem, part("sure", "Probabilities", ui.bars, ui.how), buildMapPart(s),
    part("near2", "Looks most like", ui.near, ui.nearNote), part("told", "History", ui.story), ui.metaPart);
  ui.body.querySelector(".told h4").append(ui.all);
  w.root = el("aside", "why", { "aria-label": "Why the model says so" }, ui.body, ui.acts);
  return w.root;
}

// The image that the large picture shows; called whenever something about it may have changed.
function showWhy(s, row) {
  const { review } = s.data;
  if (!s.why) return;
  const w = s.why;
  w.root.hidden = !review;
  if (!review) return;
  const sign = `${review.model_id} ${review.truth} ${review.only} ${s.data.annotator}`;
  if (w.sign !== sign) w.sign = sign, w.facts.clear(), w.asked.clear(), forgetMaps(w);
  if (w.shown !== row.id) {
    w.shown = row.id;
    w.since = Date.now();
    w.ui.body.scrollTop = 0;
  }
  paintWhy(s);
  // what was asked for is old once the label, or what stands beside it, has changed and is stored
  const stale = w.asked.get(row.id) !== stateSign(s, row.id) && !s.ahead.has(row.id);
  clearTimeout(w.timer);
  if (stale) w.timer = setTimeout(() => s.big.open && w.shown === row.id && askFacts(s, row.id), SETTLE);
  mapDue(s);
}

function stateSign(s, id) {
  const { tags, noted } = factsOf(s, id);
  return JSON.stringify([shownLabel(s, id), tags, noted]);
}

async function askFacts(s, id) {
  const w = s.why;
  const { sign } = w;
  const state = stateSign(s, id);
  if (w.asked.get(id) === state) return;
  w.asked.set(id, state);
  const turns = w.turns.get(id); // an answer that began before it was taken out knows nothing of that
  const { model_id: model, truth, only } = s.data.review;
  const own = only === null ? {} : { own: "1" };
  let found;
  try {
    found = await askServer("/api/review/image", { model, truth, image: id, annotator: s.data.annotator || "", ...own });
  } catch (error) {
    found = { error: error instanceof TypeError ? "The server does not answer." : error.message };
  }
  if (w.sign !== sign || w.asked.get(id) !== state) return; // asked anew meanwhile: that answer counts
  if (!found.error && w.turns.get(id) === turns) w.out.set(id, found.status === "excluded");
  w.facts.set(id, found);
  if (w.shown !== id || !s.big.open) return;
  paintWhy(s);
  mapDue(s);
  const next = s.images[s.focus + 1];
  if (next && !w.facts.has(next.id)) setTimeout(() => w.shown === id && s.big.open && askFacts(s, next.id), 150); // here before it is shown
}

function askAgain(s) {
  const w = s.why;
  w.facts.delete(w.shown);
  w.asked.delete(w.shown);
  showWhy(s, s.images[s.focus]);
}

// What a key means beside the large picture; null where it means nothing of its own.
function whyKey(s, e, key) {
  if (!s.data.review || !s.big || !s.big.open) return null;
  if (key === "x" && e.shiftKey) return () => toggleExcluded(s);
  if (key === ".") return () => toggleMap(s);
  if (key === ",") return () => turnMap(s);
  return key === ";" ? () => openNear(s, 0) : null;
}

// out of use ---------------------------------------------------------------------------------------

const isOut = (s, id) => !!s.why && s.why.out.get(id) === true;

async function toggleExcluded(s, id = s.images[s.focus].id) {
  if (!s.data.annotator) return s.warn("Say first who you are, in the sidebar: what is excluded is kept with a name.");
  const back = isOut(s, id);
  const name = baseName(nameFor(s, id));
  try {
    await tellServer("/api/review/exclude", { project_id: s.data.project_id, image: id, annotator: s.data.annotator, back });
  } catch (error) {
    return s.warn(`${name} was not ${back ? "taken back in" : "excluded"}. ${error instanceof TypeError ? "The server does not answer." : error.message}`);
  }
  document.dispatchEvent(new CustomEvent("cnsapp:stored", { detail: { project: s.data.project_id, images: [id] } })); // whoever counts
  s.why.turns.set(id, (s.why.turns.get(id) || 0) + 1);
  s.why.out.set(id, !back);
  s.why.asked.delete(id); // its history has one more line
  if (!back) s.why.taken.push({ id, top: s.stack[s.stack.length - 1] });
  s.paint([id]);
  if (!back && s.big.open && s.why.shown === id && s.focus < s.images.length - 1) moveFocus(s, s.focus + 1, false);
  s.say(back ? `${name}: in use again` : `${name}: excluded, its label stays · U takes it back`);
}

// Undo takes back an exclusion when nothing was labelled since. Returns whether it did.
function undoExclusion(s) {
  const taken = s.why ? s.why.taken : [];
  const last = taken[taken.length - 1];
  if (!last || last.top !== s.stack[s.stack.length - 1]) return false;
  taken.pop();
  if (!isOut(s, last.id)) return undoExclusion(s); // it is in use again already
  showAgain(s, [last.id]);
  toggleExcluded(s, last.id);
  return true;
}

async function tellServer(path, message) {
  const { status, answer } = await postJson(path, message);
  if (status >= 400) throw new Error(answer.error || `The server answered ${status}.`);
  return answer;
}

async function postJson(path, message) {
  const options = { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message) };
  const response = await fetch(path, options);
  return { status: response.status, answer: await response.json().catch(() => ({})) };
}
