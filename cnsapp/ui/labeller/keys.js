// The keyboard: what a key means where, and when it is not ours.

function onKey(s, e) {
  const path = e.composedPath();
  const target = path[0];
  const inside = path.includes(s.host);
  if (e.defaultPrevented || e.isComposing || isTyping(target, e.key) || elsewhere(s, inside)) return;
  if (s.ui.sheet.open || (s.story && s.story.open)) return;
  const free = inside || target === document.body || isPlainButton(target, e.key);
  if (s.chord && !e.ctrlKey && !e.metaKey && !e.altKey) {
    e.preventDefault();
    return endChordWith(s, e);
  }
  if (e.ctrlKey || e.metaKey || e.altKey) {
    if (withControl(s, e, free)) e.preventDefault();
    return;
  }
  if (handled(s, e, target, free)) e.preventDefault();
}

function withControl(s, e, free) {
  if (e.altKey) return false;
  const key = e.key.toLowerCase();
  if (key === "a" && !e.shiftKey && free && !isSingle(s)) return selectAll(s), true;
  if (key !== "z" && !(key === "y" && e.ctrlKey)) return false;
  if (!e.repeat) takeLast(s, key === "y" || e.shiftKey ? "redo" : "undo");
  return true;
}

// Returns true when the key meant something here.
function handled(s, e, target, free) {
  const presses = target.tagName === "BUTTON" && (e.key === "Enter" || e.key === " ");
  const viewer = isSingle(s) ? s.viewer : s.big && s.big.open ? s.bigViewer : null;
  if (viewer && !presses && (free || e.key.length === 1) && viewer.key(e)) return true;
  if (free && !presses && (isSingle(s) ? singleKey(s, e) : gridKey(s, e))) return true;
  const meant = presses ? null : meaning(s, e, e.key.toLowerCase());
  if (!meant) return false;
  if (!e.repeat) meant(); // a key held down means one label
  return true;
}

function meaning(s, e, key) {
  const beside = whyKey(s, e, key);
  if (beside) return beside;
  if (key === "h" && e.shiftKey) return () => openStory(s);
  if (key === "?" || key === "h") return () => s.ui.sheet.showModal();
  if (key === "u") return () => takeLast(s, e.shiftKey ? "redo" : "undo");
  if (key === "a" || (key === "enter" && isSingle(s))) return () => acceptGuesses(s);
  if (key === "n") return () => openNote(s);
  if (key === "m") return () => openTags(s);
  if (key === "/") return () => openFinder(s);
  if (!isSingle(s) && key === "i") return () => invert(s);
  if (!isSingle(s) && (key === "+" || key === "-")) return () => resize(s, key);
  const other = OTHERS.find((o) => o.key === key || (o.kind === "clear" && key === "backspace"));
  if (other) return () => s.label(other.kind, null);
  const found = findPressed(s.keys, e);
  if (found) return () => s.label("label", found.id);
  return findPressed(s.chords, e) ? () => startChord(s, e) : null;
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
