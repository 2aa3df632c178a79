// The component's entry: called at every rerun with fresh data, mounted and unmounted once.

const MOUNTED = new WeakMap();

export default function labeller(component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  let s = MOUNTED.get(parentElement);
  if (s && s.data.mode !== data.mode) s.unmount(), (s = null);
  if (!s) {
    s = newState(parentElement);
    MOUNTED.set(parentElement, s);
  }
  s.set = setStateValue;
  s.trigger = setTriggerValue;
  const first = !s.host;
  takeData(s, data);
  if (first) mount(s);
  refill(s);
  if (first) s.warmUp();
  return s.unmount;
}

function mount(s) {
  s.host = el("div", "lab", { "data-mode": s.data.mode });
  const old = s.root.querySelector(".lab");
  if (old) old.remove();
  s.root.append(s.host);
  s.paint = (ids) => paintImages(s, ids);
  s.label = (kind, classId) => labelTargets(s, kind, classId);
  s.open = (id) => id && s.trigger("open", id);
  recallAhead(s);
  buildFrame(s);
  if (isSingle(s)) buildSingle(s), buildBeside(s);
  else buildGrid(s);
  const stop = new AbortController();
  const { signal } = stop;
  const listener = (answer) => onAnswer(s, answer);
  const noted = (answer) => onNoteAnswer(s, answer);
  s.box.listeners.add(listener);
  s.notebox.listeners.add(noted);
  document.addEventListener("keydown", (e) => onKey(s, e), { signal });
  window.addEventListener("resize", () => fit(s), { signal });
  window.addEventListener("pagehide", () => rememberPlace(s), { signal });
  listenToTabs(s, signal);
  listenForNews(s, signal);
  const watch = new ResizeObserver(() => fit(s)); // the page above us grows while it is drawn
  const page = outer(s.host, "stMainBlockContainer");
  if (page) watch.observe(page);
  s.unmount = () => {
    rememberPlace(s);
    if (s.leave) s.leave(); // the queue: others may have its images
    stop.abort();
    watch.disconnect();
    s.box.listeners.delete(listener);
    s.notebox.listeners.delete(noted);
    clearTimeout(s.savingTimer);
    endChord(s);
    for (const viewer of [s.viewer, s.bigViewer]) if (viewer) viewer.stop();
    s.host.remove();
    MOUNTED.delete(s.root);
  };
  if (isSingle(s)) s.say("A class key labels this image and shows the next.");
  s.warmUp = () => {
    flush(s.box);
    flush(s.notebox);
    loadStacks(s);
    fit(s);
    if (!isTyping(document.activeElement)) takeKeyboard(s);
  };
}

const isSingle = (s) => s.data.mode === "single";

// The keyboard goes to the pictures: behind a popup that was closed, and at the beginning.
function takeKeyboard(s) {
  const place = s.big && s.big.open ? s.bigPicture : s.ui.frame || s.ui.list;
  place.focus({ preventScroll: true });
}

function refill(s) {
  buildPanel(s);
  buildSheet(s);
  if (isSingle(s)) fillQueue(s);
  else fillGrid(s);
  s.paint(s.images.map((row) => row.id));
  if (isSingle(s)) fetchAhead(s), askForMore(s);
  else paintSelection(s);
  paintSaved(s);
  paintUndo(s);
  fit(s);
  if (!isSingle(s)) showPlace(s);
}

function paintImages(s, ids) {
  if (isSingle(s)) paintSingle(s);
  else {
    for (const id of ids) paintCell(s, id);
    paintChoice(s, targets(s));
    if (s.big && s.big.open) showBig(s);
  }
  paintPanel(s);
}

// The component is as high as the window leaves room for, so that the classes stay in sight.
function fit(s) {
  if (s.data.height) return void (s.host.style.height = `${s.data.height}px`);
  const top = s.host.getBoundingClientRect().top + scrolled(s.host);
  const room = window.innerHeight - (top < window.innerHeight * 0.45 ? top : 90) - 20;
  s.host.style.height = `${Math.max(440, Math.round(room))}px`;
}

function scrolled(node) {
  const main = outer(node, "stMain");
  return main ? main.scrollTop : 0;
}

// An element of the page around the component.
function outer(node, testId) {
  const { host } = node.getRootNode();
  return host ? host.closest(`[data-testid="${testId}"]`) : null;
}

// What a key means: the image on screen, or the selection or framed image of the grid.
const chosenIds = (s) => (isSingle(s) ? s.images.slice(s.pos, s.pos + 1).map((row) => row.id) : targets(s));

function labelTargets(s, kind, classId) {
  const ids = chosenIds(s);
  if (!ids.length) return s.say("Select an image first.");
  if (unseen(s) && kind === "label") return s.say("This picture cannot be shown, so it gets no class. Skip it with S, or wait.");
  if (ids.some((id) => isOut(s, id))) return s.say("It is excluded: take it back in first (Shift X).");
  if (!act(s, ids, kind, classId)) return;
  moveOn(s, ids);
  const word = kind === "clear" ? "no label" : labelWord(s, stateOf(kind, classId));
  s.say(ids.length === 1 ? `${baseName(nameFor(s, ids[0]))}: ${word}` : `${images(ids.length)}: ${word}`);
}

// Paint what `act` made, show what comes next, and only then send.
function moveOn(s, ids) {
  s.busyAt = Date.now();
  if (isSingle(s)) {
    s.pos += 1;
    s.paint(ids);
    sendNow(s);
    lookAhead(s);
  } else {
    afterLabel(s, ids);
    s.paint(ids);
    paintSelection(s);
    sendNow(s);
  }
}

// Nobody can say what a picture is that did not arrive.
const unseen = (s) => isSingle(s) && s.ui.frame.classList.contains("broken");

const nameFor = (s, id) => (s.at.has(id) ? s.images[s.at.get(id)].name : s.known.get(id)?.name || "image");

async function takeLast(s, kind) {
  const words = TAKE_BACK[kind];
  if (kind === "undo" && undoExclusion(s)) return;
  const step = await (kind === "undo" ? undo(s) : redo(s));
  if (!step) return paintUndo(s), s.say(words.none);
  const ids = step.events.map(([, , id]) => id);
  if (!isSingle(s)) showAgain(s, ids);
  else if (kind === "undo") s.returning = ids[0], s.at.has(ids[0]) && bringBack(s, ids[0]);
  else if (s.at.has(ids[0])) goTo(s, s.at.get(ids[0]) + 1);
  s.paint(ids);
  sendNow(s);
  if (s.running) sayProgress(s);
  else s.say(ids.length === 1 ? `${words.done}: ${stepWord(s, step)}` : `${words.done}: ${stepWord(s, step)} on ${images(ids.length)}`);
  if (kind === "undo" && s.stack.length < 10 && !s.stackEnds) loadUndos(s);
  if (kind === "redo" && !s.redos.length) loadRedos(s);
}

// Put frame and selection back on what was undone, so that the right key can follow at once.
function showAgain(s, ids) {
  const here = ids.filter((id) => s.at.has(id));
  if (!here.length) return;
  s.selected = new Set(here.length > 1 ? here : []);
  s.used = false;
  s.focus = s.anchor = s.at.get(here[0]);
  s.cells.get(here[0]).root.scrollIntoView({ block: "nearest" });
  paintSelection(s);
}

function onAnswer(s, answer) {
  const ids = takeAnswer(s, answer);
  if (answer && s.returning && answer.images.some((image) => image.id === s.returning)) {
    if (isSingle(s) && !s.at.has(s.returning)) bringBack(s, s.returning);
    s.returning = null;
  }
  if (answer && unseen(s)) s.ui.frame.dataset.id = ""; // the server is back: ask for the picture again
  if (answer) s.paint(ids), sayProgress(s);
  paintSaved(s);
  tabsToldNow(s);
}
