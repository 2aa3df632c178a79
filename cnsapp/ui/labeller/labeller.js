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
  s.undo = () => undoLast(s);
  s.open = (id) => id && s.trigger("open", id);
  recallAhead(s);
  buildFrame(s);
  if (isSingle(s)) buildSingle(s);
  else buildGrid(s);
  const listener = (answer) => onAnswer(s, answer);
  const stop = new AbortController();
  s.box.listeners.add(listener);
  document.addEventListener("keydown", (e) => onKey(s, e), { signal: stop.signal });
  window.addEventListener("resize", () => fit(s), { signal: stop.signal });
  const watch = new ResizeObserver(() => fit(s)); // the page above us grows while it is drawn
  const page = outer(s.host, "stMainBlockContainer");
  if (page) watch.observe(page);
  s.unmount = () => {
    if (s.leave) s.leave(); // the queue: others may have its images
    stop.abort();
    watch.disconnect();
    s.box.listeners.delete(listener);
    clearTimeout(s.savingTimer);
    for (const viewer of [s.viewer, s.bigViewer]) if (viewer) viewer.stop();
    s.host.remove();
    MOUNTED.delete(s.root);
  };
  if (isSingle(s)) s.say("A class key labels this image and shows the next.");
  s.warmUp = () => {
    flush(s.box);
    loadStack(s);
    fit(s);
    if (!isTyping(document.activeElement)) (s.ui.frame || s.ui.list).focus({ preventScroll: true });
  };
}

const isSingle = (s) => s.data.mode === "single";

function refill(s) {
  buildPanel(s);
  buildSheet(s);
  if (isSingle(s)) fillQueue(s);
  else fillGrid(s);
  s.paint(s.images.map((row) => row.id));
  if (isSingle(s)) fetchAhead(s), askForMore(s);
  else paintSelection(s);
  paintSaved(s);
  fit(s);
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

function labelTargets(s, kind, classId) {
  const ids = isSingle(s) ? s.images.slice(s.pos, s.pos + 1).map((row) => row.id) : targets(s);
  if (!ids.length) return s.say("Select an image first.");
  if (unseen(s) && kind === "label") return s.say("This picture cannot be shown, so it gets no class. Skip it with S, or wait.");
  if (!act(s, ids, kind, classId)) return;
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
  const word = kind === "clear" ? "no label" : labelWord(s, stateOf(kind, classId));
  s.say(ids.length === 1 ? `${baseName(nameFor(s, ids[0]))}: ${word}` : `${images(ids.length)}: ${word}`);
}

// Nobody can say what a picture is that did not arrive.
const unseen = (s) => isSingle(s) && s.ui.frame.classList.contains("broken");

const nameFor = (s, id) => (s.at.has(id) ? s.images[s.at.get(id)].name : s.known.get(id)?.name || "image");

async function undoLast(s) {
  const step = await undo(s);
  if (!step) return s.say("Nothing left to undo.");
  const ids = step.events.map(([, , id]) => id);
  if (isSingle(s)) s.returning = ids[0], s.at.has(ids[0]) && bringBack(s, ids[0]);
  else showAgain(s, ids);
  s.paint(ids);
  sendNow(s);
  const word = step.kind === "clear" ? "removing a label" : labelWord(s, stateOf(step.kind, step.class_id));
  s.say(ids.length === 1 ? `Undone: ${word}` : `Undone: ${word} on ${images(ids.length)}`);
  if (s.stack.length < 10 && !s.stackEnds) loadStack(s);
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
  if (answer) s.paint(ids);
  paintSaved(s);
}

function onKey(s, e) {
  const path = e.composedPath();
  const target = path[0];
  const inside = path.includes(s.host);
  if (e.defaultPrevented || e.isComposing || isTyping(target, e.key) || elsewhere(s, inside)) return;
  if (s.ui.sheet.open) return;
  const free = inside || target === document.body || isPlainButton(target, e.key);
  if (e.ctrlKey || e.metaKey || e.altKey) {
    const all = e.key.toLowerCase() === "a" && !e.altKey && !e.shiftKey;
    if (all && free && !isSingle(s)) e.preventDefault(), selectAll(s);
    return;
  }
  if (handled(s, e, target, free)) e.preventDefault();
}

// Returns true when the key meant something here.
function handled(s, e, target, free) {
  const presses = target.tagName === "BUTTON" && (e.key === "Enter" || e.key === " ");
  const viewer = isSingle(s) ? s.viewer : s.big && s.big.open ? s.bigViewer : null;
  if (viewer && !presses && (free || e.key.length === 1) && viewer.key(e)) return true;
  if (free && !presses && (isSingle(s) ? singleKey(s, e) : gridKey(s, e))) return true;
  const key = e.key.toLowerCase();
  if (key === "?" || key === "h") return s.ui.sheet.showModal(), true;
  if (!isSingle(s) && key === "i") return invert(s), true;
  if (!isSingle(s) && (key === "+" || key === "-")) return resize(s, key), true;
  const meant = meaning(s, e, key);
  if (!meant) return false;
  if (!e.repeat) meant(); // a key held down means one label
  return true;
}

function meaning(s, e, key) {
  if (key === "u") return () => s.undo();
  const other = OTHERS.find((o) => o.key === key || (o.kind === "clear" && key === "backspace"));
  if (other) return () => s.label(other.kind, null);
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(e.code); // the digit row of keyboards that need Shift for it
  const found = s.keys.get(key) || (digit && s.keys.get(digit[1]));
  return found ? () => s.label("label", found.id) : null;
}

function resize(s, key) {
  const sizes = Object.keys(SIZES);
  const at = sizes.indexOf(s.size) + (key === "+" ? 1 : -1);
  setSize(s, sizes[Math.max(0, Math.min(sizes.length - 1, at))]);
}

function isTyping(node, key = "") {
  if (node && node.type === "range") return !key || /^(Arrow|Home$|End$)/.test(key); // the rest means nothing to a slider
  return !!node && (/^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) || node.isContentEditable);
}

// A button that was clicked keeps the keyboard; arrows mean nothing to it, so they are ours.
function isPlainButton(node, key) {
  const composite = '[role="radiogroup"], [role="toolbar"], [role="tablist"], [role="group"]';
  return node.tagName === "BUTTON" && /^(Arrow|Home$|End$)/.test(key) && !node.closest(composite);
}

// A dialog or menu of the page around us is open: its keys are not ours.
function elsewhere(s, inside) {
  return !inside && !!document.querySelector('[data-testid="stDialog"], [role="dialog"], [role="menu"], [role="listbox"]');
}
