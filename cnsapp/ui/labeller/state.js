// What the screen knows: the database's word on each image, what is on its way there, and what can
// be undone. Nothing in this part draws; it calls `s.paint(ids)` when images are called otherwise.

function newState(root) {
  return {
    root,
    client: randomId(), // new at every mount: a duplicated tab must not reuse another one's numbers
    seq: 0,
    actions: 0,
    box: theOutbox(),
    data: {},
    images: [], // [{id, sha, version, name, badge}] in the order shown
    at: new Map(), // image id -> place in `images`
    known: new Map(), // image id -> {state, class_id, rev, as_of}: the database's word
    ahead: new Map(), // image id -> {state, class_id}: painted, not confirmed yet
    counts: null,
    countsAsOf: -1,
    stack: [], // actions that can be undone, the oldest first
    spentActions: new Set(),
    stackCursor: null, // where the server's list goes on; null = from the newest
    stackEnds: false,
    loadingStack: null,
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
  s.keys = new Map(data.classes.filter((c) => c.hotkey).map((c) => [c.hotkey.toLowerCase(), c]));
  if (before.project_id !== data.project_id || before.annotator !== data.annotator) forgetStack(s);
  takeRows(s, data.images, data.as_of);
  takeCounts(s, data.counts, data.as_of === null ? 0 : data.as_of);
}

// What rows, of the page or of the queue, say of their images.
function takeRows(s, rows, asOf) {
  for (const row of rows) {
    const known = s.known.get(row.id);
    // rows read before an answer that we have already must not overwrite it
    const newer = asOf === null ? !known : !known || asOf >= known.as_of;
    if (newer) s.known.set(row.id, { state: row.state, class_id: row.class_id, rev: row.rev, as_of: asOf || 0 });
  }
}

function takeCounts(s, counts, asOf) {
  if (!counts || asOf < s.countsAsOf) return;
  s.counts = counts;
  s.countsAsOf = asOf;
}

const shownLabel = (s, id) => s.ahead.get(id) || s.known.get(id) || { state: "none", class_id: null };

function mine(s, item) {
  return item.project === s.data.project_id;
}

// After a reload: what an earlier page could not deliver is on its way again, so show it so.
function recallAhead(s) {
  for (const item of s.box.items) {
    if (!mine(s, item)) continue;
    const { kind, image_id, class_id } = item.event;
    s.ahead.set(image_id, kind === "undo" ? { state: "wait", class_id: null } : stateOf(kind, class_id));
  }
}

function stateOf(kind, classId) {
  return { state: kind === "clear" ? "none" : kind, class_id: kind === "label" ? classId : null };
}

// One action: a kind (and class) for these images. Paints first, then sends.
function act(s, ids, kind, classId) {
  if (!s.data.annotator) return s.warn("Say first who is labelling, in the sidebar: every label is kept with a name."), false;
  const usual = s.data.mode === "review" ? "review" : ids.length > 1 ? "bulk" : "human";
  const source = (s.sourceFor && s.sourceFor(ids)) || usual; // the queue knows second readings
  const action = `${s.actionPrefix ? s.actionPrefix(ids) : ""}${s.client}-${++s.actions}`;
  const before = new Map(ids.map((id) => [id, shownLabel(s, id)]));
  const events = ids.map((id) => ({
    client: s.client, seq: ++s.seq, image_id: id, sha: shaOf(s, id), kind, source, action,
    ...(kind === "label" ? { class_id: classId } : {}),
  }));
  for (const id of ids) s.ahead.set(id, stateOf(kind, classId));
  s.stack.push({ action, kind, class_id: classId, before, events: events.map((e) => [e.client, e.seq, e.image_id]) });
  s.unsent = () => addToOutbox(s.box, s.data.project_id, s.data.annotator, events);
  return true;
}

// Send what `act` or `undo` made; called after the screen has been painted.
function sendNow(s) {
  const send = s.unsent;
  s.unsent = null;
  if (send) send();
}

const shaOf = (s, id) => (s.at.has(id) ? s.images[s.at.get(id)].sha : "");

// Take back the newest action; resolves to it, or to null when there is none.
async function undo(s) {
  if (!s.stack.length && !s.stackEnds) await loadStack(s);
  const step = s.stack.pop();
  if (!step) return null;
  s.spentActions.add(step.action);
  const action = `${s.client}-${++s.actions}`;
  const source = step.events.length > 1 ? "bulk" : "human";
  const events = step.events.map(([client, seq, id]) => ({
    client: s.client, seq: ++s.seq, image_id: id, kind: "undo", source, action, target: { client, seq },
  }));
  for (const [, , id] of step.events) s.ahead.set(id, (step.before && step.before.get(id)) || { state: "wait", class_id: null });
  s.unsent = () => addToOutbox(s.box, s.data.project_id, s.data.annotator, events);
  return step;
}

function forgetStack(s) {
  s.stack = [];
  s.stackCursor = null;
  s.stackEnds = false;
}

// Fetch older actions of this person from the server and put them under the ones made here.
function loadStack(s) {
  if (!s.loadingStack) s.loadingStack = loadSteps(s).finally(() => (s.loadingStack = null));
  return s.loadingStack;
}

async function loadSteps(s) {
  const { project_id: project, annotator } = s.data;
  if (!annotator) return;
  await delivered(s);
  let steps;
  try {
    steps = await fetchUndoSteps(project, annotator, s.stackCursor);
  } catch (error) {
    return; // tried again at the next undo
  }
  if (project !== s.data.project_id || annotator !== s.data.annotator) return;
  if (!steps.length) s.stackEnds = true;
  else s.stackCursor = steps[steps.length - 1].last_event;
  const here = new Set(s.stack.map((step) => step.action));
  const older = steps.filter((step) => !here.has(step.action) && !s.spentActions.has(step.action));
  s.stack.unshift(...older.reverse());
}

// Wait (a little) until the outbox is empty, so that the server's list has what was on its way.
function delivered(s) {
  return new Promise((done) => {
    const check = () => {
      if (s.box.items.length && !s.box.fails) return;
      s.box.listeners.delete(check);
      clearTimeout(timer);
      done();
    };
    const timer = setTimeout(() => (s.box.listeners.delete(check), done()), 3000);
    s.box.listeners.add(check);
    check();
  });
}

// The server's answer (null: only the outbox changed). Returns the ids to repaint.
function takeAnswer(s, answer) {
  if (!answer || answer.project !== s.data.project_id) return [];
  for (const image of answer.images) {
    const known = s.known.get(image.id);
    if (!known || answer.as_of >= known.as_of) s.known.set(image.id, { ...image, as_of: answer.as_of });
  }
  takeCounts(s, answer.counts, answer.as_of);
  const waiting = new Set(s.box.items.filter((item) => mine(s, item)).map((item) => item.event.image_id));
  const settled = [...s.ahead.keys()].filter((id) => !waiting.has(id));
  for (const id of settled) s.ahead.delete(id);
  if (answer.rejected.length) rejectedNotice(s, answer.rejected);
  return settled;
}

function rejectedNotice(s, rejected) {
  const names = new Set(rejected.map(nameOf));
  for (const step of s.stack) step.events = step.events.filter(([client, seq]) => !names.has(`${client} ${seq}`));
  s.stack = s.stack.filter((step) => step.events.length);
  const n = rejected.length;
  s.warn(`${n === 1 ? "1 label was" : `${n} labels were`} not stored. ${rejected[0].reason}`);
}
