// What the screen knows: the database's word on each image, what is on its way there, and what
// stands beside. Nothing in this part draws; it calls `s.paint(ids)` when images are called otherwise.

const NOTHING = { state: "none", class_id: null };
const NO_FACTS = { suggestion: null, tags: [], noted: false, second: "", touched: 0 };
const BLIND = ["second", "self"]; // readings in which nothing said before may be seen
const STALE = 5000; // ms: rows of a rerun that began before a tag was stored do not take it off again

function newState(root) {
  return {
    root,
    client: randomId(), // new at every mount: a duplicated tab must not reuse another one's numbers
    seq: 0,
    actions: 0,
    box: theOutbox(),
    notebox: theNotebox(),
    data: {},
    images: [], // [{id, sha, version, name, badge}] in the order shown
    at: new Map(), // image id -> place in `images`
    known: new Map(), // image id -> {state, class_id, rev, source, disputed, as_of}: the database's word
    ahead: new Map(), // image id -> {state, class_id, source}: painted, not confirmed yet
    own: new Map(), // image id -> what was said here, of images that are read blindly
    facts: new Map(), // image id -> what stands beside: suggestion, tags, noted, second
    counts: null,
    countsAsOf: -1,
    unsent: [], // what `sendNow` hands to the outbox, once the screen has been painted
    recent: [], // ids of the classes labelled last, the newest first
    ...newStacks(),
    focus: 0,
    anchor: 0,
    selected: new Set(),
    used: false, // the selection has been labelled: the next arrow or Ctrl-click starts afresh
    paint: () => {},
    say: () => {},
    warn: () => {},
  };
}

function takeData(s, data) {
  const before = s.data;
  s.data = data;
  s.classes = new Map(data.classes.map((c) => [c.id, c]));
  takeKeys(s, data.classes);
  if (before.stamp !== undefined && before.stamp !== data.stamp) forgetStacks(s); // the page labelled many: it comes first now
  if (before.project_id !== data.project_id || before.annotator !== data.annotator) {
    forgetStacks(s);
    s.recent = readRecent(s);
  }
  takeRows(s, data.images, data.as_of);
  takeCounts(s, data.counts, data.as_of === null ? 0 : data.as_of);
}

// What rows, of the page or of the queue, say of their images.
function takeRows(s, rows, asOf) {
  for (const row of rows) {
    takeFacts(s, row);
    const known = s.known.get(row.id);
    // rows read before an answer that we have already must not overwrite it
    const newer = asOf === null ? !known : !known || asOf >= known.as_of;
    if (!newer) continue;
    const { sha, version, name, state, class_id, rev } = row;
    s.known.set(row.id, { sha, version, name, state, class_id, rev, source: row.source || null, disputed: !!row.disputed, as_of: asOf || 0 });
  }
}

function takeFacts(s, row) {
  const old = s.facts.get(row.id);
  const ours = old && Date.now() - old.touched < STALE ? { tags: old.tags, noted: old.noted, touched: old.touched } : {};
  const { suggestion = null, tags = [], noted = false } = row;
  const second = BLIND.includes(row.as_source) ? row.as_source : "";
  s.facts.set(row.id, { suggestion, tags, noted, second, touched: 0, ...ours });
}

function takeCounts(s, counts, asOf) {
  if (!counts || asOf < s.countsAsOf) return;
  s.counts = counts;
  s.countsAsOf = asOf;
}

const factsOf = (s, id) => s.facts.get(id) || NO_FACTS;

// Whoever reads an image blindly sees what they said themselves and nothing else.
function shownLabel(s, id) {
  return s.ahead.get(id) || (factsOf(s, id).second ? s.own.get(id) : s.known.get(id)) || NOTHING;
}

function mine(s, item) {
  return item.project === s.data.project_id;
}

// After a reload: what an earlier page could not deliver is on its way again, so show it so.
function recallAhead(s) {
  for (const item of s.box.items) {
    if (!mine(s, item)) continue;
    const { kind, image_id, class_id, source } = item.event;
    s.ahead.set(image_id, TAKE_BACK[kind] ? waiting(kind) : stateOf(kind, class_id, source));
  }
}

function stateOf(kind, classId, source = "") {
  return { state: kind === "clear" ? "none" : kind, class_id: kind === "label" ? classId : null, source };
}

// One action: a kind (and class) for these images. Paints first, then sends.
function act(s, ids, kind, classId) {
  return actEach(s, ids.map((id) => ({ id, kind, class_id: kind === "label" ? classId : null })));
}

// One action in which each image gets a kind (and class) of its own.
function actEach(s, acts, source = "") {
  if (!s.data.annotator) return s.warn("Say first who is labelling, in the sidebar: every label is kept with a name."), false;
  const ids = acts.map(({ id }) => id);
  const usual = s.data.source || (s.data.mode === "review" ? "review" : ids.length > 1 ? "bulk" : "human");
  const from = source || (s.sourceFor && s.sourceFor(ids)) || usual; // the queue knows second readings
  const action = `${s.actionPrefix ? s.actionPrefix(ids) : ""}${s.client}-${++s.actions}`;
  const before = new Map(ids.map((id) => [id, shownLabel(s, id)]));
  const after = new Map();
  const events = acts.map(({ id, kind, class_id }) => {
    const event = { client: s.client, seq: ++s.seq, image_id: id, sha: shaOf(s, id), kind, source: factsOf(s, id).second || from, action };
    after.set(id, stateOf(kind, class_id, event.source));
    return kind === "label" ? { ...event, class_id } : event;
  });
  for (const [id, label] of after) paintAhead(s, id, label);
  const [{ kind, class_id }] = acts;
  const same = acts.every((one) => one.class_id === class_id);
  pushStep(s, { kind, class_id: same ? class_id : null, before, after, events: events.map((e) => [e.client, e.seq, e.image_id]) });
  for (const one of acts) if (one.class_id) noteRecent(s, one.class_id);
  queueUp(s, events);
  return true;
}

function queueUp(s, events) {
  const { project_id: project, annotator, whose } = s.data;
  // of images that are read blindly not even the answer may tell what others say
  const own = whose === "mine" || events.some((event) => factsOf(s, event.image_id).second);
  s.unsent.push(() => addToOutbox(s.box, project, annotator, events, own ? { whose: "mine" } : {}));
}

function paintAhead(s, id, label) {
  s.ahead.set(id, label);
  if (label.state === "wait") s.own.delete(id);
  else s.own.set(id, label);
}

// Send what was made here; called after the screen has been painted.
function sendNow(s) {
  for (const send of s.unsent.splice(0)) send();
}

const shaOf = (s, id) => (s.at.has(id) ? s.images[s.at.get(id)].sha : (s.known.get(id) || {}).sha || "");

// The server's answer (null: only the outbox changed). Returns the ids to repaint.
function takeAnswer(s, answer) {
  if (!answer || answer.project !== s.data.project_id) return [];
  for (const image of answer.images) takeLabel(s, image, answer.as_of);
  takeCounts(s, answer.counts, answer.as_of);
  const waiting = new Set(s.box.items.filter((item) => mine(s, item)).map((item) => item.event.image_id));
  const settled = [...s.ahead.keys()].filter((id) => !waiting.has(id));
  for (const id of settled) s.ahead.delete(id);
  if (answer.rejected.length) rejectedNotice(s, answer.rejected);
  return settled;
}

function takeLabel(s, image, asOf) {
  const known = s.known.get(image.id);
  if (!known || asOf >= known.as_of) s.known.set(image.id, { ...known, ...image, as_of: asOf });
}

function rejectedNotice(s, rejected) {
  forgetEvents(s, new Set(rejected.map(nameOf)));
  const n = rejected.length;
  s.warn(`${n === 1 ? "1 label was" : `${n} labels were`} not stored. ${rejected[0].reason}`);
}

// classes used last ----------------------------------------------------------------------------

const MOST_RECENT = 6;
const recentKey = (s) => `cnsapp.recent.${s.data.project_id}`;

function readRecent(s) {
  try {
    return JSON.parse(localStorage.getItem(recentKey(s)) || "[]").filter(Number.isInteger);
  } catch (error) {
    return [];
  }
}

function noteRecent(s, classId) {
  if (s.recent[0] === classId) return;
  s.recent = [classId, ...s.recent.filter((id) => id !== classId)].slice(0, MOST_RECENT);
  clearTimeout(s.recentTimer);
  s.recentTimer = setTimeout(() => {
    try { localStorage.setItem(recentKey(s), JSON.stringify(s.recent)); } catch (error) { /* not remembered */ }
  }, 500);
}
