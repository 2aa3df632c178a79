// Undo and redo without limit: steps made here lie on top of the ones that the server tells.
// A step is an action: {kind, class_id, events: [[client, seq, image id]], before, after}.

const TAKE_BACK = {
  undo: { going: "undoing…", done: "Undone", none: "Nothing left to undo.", path: "/api/labels/undo" },
  redo: { going: "redoing…", done: "Redone", none: "Nothing to redo.", path: "/api/labels/redo" },
};
const LARGE = 400; // events from which the status line counts along

function newStacks() {
  return {
    stack: [], // what can be undone, the oldest first
    redos: [], // what can be redone, the one to redo first last
    redoEnds: false, // a label made here ended what the server may still tell
    spent: new Set(), // steps undone here whose undo the server's list may not know yet
    stackCursor: null, // where the server's list goes on; null = from the newest
    stackEnds: false,
    loading: {},
  };
}

function forgetStacks(s) {
  Object.assign(s, newStacks());
}

const waiting = (kind) => ({ state: "wait", class_id: null, word: TAKE_BACK[kind].going });

// Of a step made here and of the same one told by the server.
function stepKey(step) {
  let first = step.events[0];
  for (const event of step.events) if (event[1] < first[1]) first = event;
  return `${first[0]} ${first[1]}`;
}

function pushStep(s, step) {
  s.stack.push(step);
  s.redos = []; // a new label ends what could be redone
  s.redoEnds = true;
  paintUndo(s);
  tellOtherTabs(s);
}

// Take back the newest step, or bring back the one undone last. Resolves to it, or to null.
async function undo(s) {
  if (!s.stack.length && !s.stackEnds) await loadUndos(s);
  const step = s.stack.pop();
  if (!step) return null;
  s.redos.push(step);
  s.redoEnds = false;
  s.spent.add(stepKey(step));
  takeBack(s, step, "undo", step.before);
  return step;
}

async function redo(s) {
  if (!s.redos.length && !s.redoEnds) await loadRedos(s);
  const step = s.redos.pop();
  if (!step) return null;
  s.stack.push(step);
  s.spent.delete(stepKey(step));
  if (s.actionPrefix) s.actionPrefix(step.events.map(([, , id]) => id)); // the queue: they are done again
  takeBack(s, step, "redo", step.after || labelsOf(step));
  return step;
}

// The server tells one class a step: of a step with several, each image waits for its word.
function labelsOf(step) {
  if (step.kind === "label" && step.class_id === null) return null;
  return new Map(step.events.map(([, , id]) => [id, stateOf(step.kind, step.class_id)]));
}

function takeBack(s, step, kind, shown) {
  const action = `${s.client}-${++s.actions}`;
  const source = step.events.length > 1 ? "bulk" : "human";
  const events = step.events.map(([client, seq, id]) => ({
    client: s.client, seq: ++s.seq, image_id: id, kind, source, action, target: { client, seq },
  }));
  for (const [, , id] of step.events) paintAhead(s, id, (shown && shown.get(id)) || waiting(kind));
  s.running = events.length > LARGE ? { action, kind, n: events.length, word: stepWord(s, step) } : null;
  queueUp(s, events);
  paintUndo(s);
  tellOtherTabs(s);
}

function stepWord(s, step) {
  if (step.kind === "clear") return "removing a label";
  if (step.kind === "label" && step.class_id === null) return "labels of several classes";
  return labelWord(s, stateOf(step.kind, step.class_id));
}

// A large step goes in parts of some hundred events: say how far it has come.
function sayProgress(s) {
  const { running } = s;
  if (!running) return;
  const left = s.box.items.filter(({ event }) => event.action === running.action).length;
  const { going, done } = TAKE_BACK[running.kind];
  if (left) return s.say(`${running.word}, ${going} ${number(running.n - left)} of ${images(running.n)}`);
  s.running = null;
  s.say(`${done}: ${running.word} on ${images(running.n)}`);
}

function forgetEvents(s, names) {
  for (const list of ["stack", "redos"]) {
    for (const step of s[list]) step.events = step.events.filter(([client, seq]) => !names.has(`${client} ${seq}`));
    s[list] = s[list].filter((step) => step.events.length);
  }
  paintUndo(s);
}

// Disabled in words and looks, not taken from under the keyboard of somebody who just pressed it.
function paintUndo(s) {
  if (!s.ui) return;
  const off = { undo: !s.stack.length && s.stackEnds, redo: !s.redos.length };
  for (const name of ["undo", "redo"]) {
    const text = String(off[name]);
    if (s.ui[name].getAttribute("aria-disabled") !== text) s.ui[name].setAttribute("aria-disabled", text);
  }
}

// what the server tells -------------------------------------------------------------------------

function loadStacks(s) {
  loadUndos(s);
  loadRedos(s);
}

const loadUndos = (s) => once(s, "undo", loadOlder);
const loadRedos = (s) => once(s, "redo", loadUndone);

function once(s, name, load) {
  const { loading } = s;
  if (!loading[name]) loading[name] = load(s).finally(() => (delete loading[name], paintUndo(s)));
  return loading[name];
}

async function fetchSteps(s, kind, more = {}) {
  const { project_id: project, annotator } = s.data;
  if (!annotator) return null;
  await delivered(s);
  if (!s.box.items.length && kind === "undo") s.spent.clear(); // the server knows it all now
  const { stack } = s;
  try {
    const { steps } = await askServer(TAKE_BACK[kind].path, { project, annotator, ...more });
    const same = project === s.data.project_id && annotator === s.data.annotator && stack === s.stack;
    return same || kind === "redo" ? steps : null;
  } catch (error) {
    return null; // tried again at the next undo
  }
}

// Older steps of this person go under the ones made here.
async function loadOlder(s) {
  const steps = await fetchSteps(s, "undo", s.stackCursor ? { before: s.stackCursor } : {});
  if (!steps) return;
  if (!steps.length) s.stackEnds = true;
  else s.stackCursor = steps[steps.length - 1].last_event;
  const here = new Set([...s.stack.map(stepKey), ...s.spent]);
  s.stack.unshift(...steps.filter((step) => !here.has(stepKey(step))).reverse());
}

async function loadUndone(s) {
  const made = s.actions;
  const steps = await fetchSteps(s, "redo");
  // with labels still on their way the server's list is not the one that holds
  if (steps && made === s.actions && !s.box.items.length && !s.redos.length && !s.redoEnds) s.redos = steps.reverse();
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

// other tabs of this browser --------------------------------------------------------------------

const TABS = "cnsapp.labels";

// What was labelled or undone in one tab changes what the others can undo.
function listenToTabs(s, signal) {
  if (!window.BroadcastChannel) return;
  s.tabs = new BroadcastChannel(TABS);
  s.tabs.addEventListener("message", ({ data }) => {
    if (data.project !== s.data.project_id || data.annotator !== s.data.annotator) return;
    clearTimeout(s.tabTimer);
    s.tabTimer = setTimeout(() => {
      if (s.box.items.length) return; // our own steps are newer; the next loading sorts it out
      forgetStacks(s);
      loadStacks(s);
    }, 400);
  });
  signal.addEventListener("abort", () => (clearTimeout(s.tabTimer), s.tabs.close(), (s.tabs = null)));
}

function tellOtherTabs(s) {
  s.untold = true; // told when the server has it
}

function tabsToldNow(s) {
  if (!s.untold || !s.tabs || s.box.items.length) return;
  s.untold = false;
  s.tabs.postMessage({ project: s.data.project_id, annotator: s.data.annotator });
}
