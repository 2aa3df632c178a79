// Wheel, drag, pinch, double click and keys of the viewer.

const DRAG_FROM = 4; // px: less is a click

function listenToViewer(v) {
  const { root } = v;
  const here = (e) => {
    const rect = root.getBoundingClientRect();
    return [e.clientX - rect.left, e.clientY - rect.top];
  };
  const onPicture = (e) => v.frame.contains(e.composedPath()[0]);
  root.addEventListener("wheel", (e) => {
    if (!onPicture(e)) return;
    e.preventDefault();
    const lines = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 400 : 1;
    const by = Math.max(-240, Math.min(240, e.deltaY * lines)) * (e.ctrlKey ? 4 : 1); // Ctrl: a pinch on a touchpad
    zoomBy(v, Math.exp(-by / 400), ...here(e));
  }, { passive: false });
  root.addEventListener("dblclick", (e) => onPicture(e) && toggleWhole(v, ...here(e)));
  const fingers = new Map();
  let last = null;
  let waiting = 0; // a pinch that the next frame draws
  root.addEventListener("pointerdown", (e) => {
    if (!onPicture(e) || e.button > 1) return;
    if (e.button === 1) e.preventDefault(); // no automatic scrolling
    fingers.set(e.pointerId, here(e));
    last = grip(fingers);
    if (fingers.size > 1) capture(root, fingers);
  });
  root.addEventListener("pointermove", (e) => {
    if (!fingers.has(e.pointerId)) return;
    if (!e.buttons) return void fingers.delete(e.pointerId); // let go outside the window
    fingers.set(e.pointerId, here(e));
    // the fingers of a pinch are told one after the other: taken singly, the middle would wander
    if (fingers.size < 2) move();
    else waiting = waiting || requestAnimationFrame(move);
  });
  const move = () => {
    cancelAnimationFrame(waiting);
    waiting = 0;
    if (!last) return;
    const now = grip(fingers);
    if (fingers.size > 1) zoomBy(v, now.spread / last.spread, now.x, now.y);
    if (v.s) {
      if (!root.classList.contains("dragged") && fingers.size < 2 && Math.hypot(now.x - last.x, now.y - last.y) < DRAG_FROM) return;
      if (!root.classList.contains("dragged")) root.classList.add("dragged"), capture(root, fingers);
      panBy(v, now.x - last.x, now.y - last.y);
    }
    last = now;
  };
  const end = (e) => {
    if (waiting) move();
    if (!fingers.delete(e.pointerId)) return;
    last = fingers.size ? grip(fingers) : null;
    if (!fingers.size) root.classList.remove("dragged");
  };
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) root.addEventListener(name, end);
  // a slider that was let go gives the keyboard back to the pictures
  root.addEventListener("change", (e) => e.target.type === "range" && e.isTrusted && v.byPointer && v.frame.focus({ preventScroll: true }));
  root.addEventListener("pointerdown", (e) => (v.byPointer = e.target.type === "range"), true);
  root.addEventListener("keydown", () => (v.byPointer = false), true);
}

function capture(root, fingers) {
  for (const id of fingers.keys()) {
    try { root.setPointerCapture(id); } catch (error) { /* it has just been lifted */ }
  }
}

// The middle of the fingers, and how far they are apart.
function grip(fingers) {
  const points = [...fingers.values()];
  const mean = (i) => points.reduce((sum, p) => sum + p[i], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const spread = points.reduce((sum, p) => sum + Math.hypot(p[0] - x, p[1] - y), 0) / points.length;
  return { x, y, spread: Math.max(1, spread) };
}

// Returns true when the key meant something here. Arrows walk over the picture only while it is closer.
function viewerKey(v, e) {
  if (!v.row) return false;
  const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
  if (step && v.s) return panBy(v, step[0] * v.fw * 0.2, step[1] * v.fh * 0.2), true;
  if (e.key === "Escape" && !v.ui.lookBox.hidden) return toggleLook(v, false), true;
  if (e.key === "Escape" && v.s) return zoomTo(v, wholeScale(v)), true;
  if (e.key === "+" || e.key === "=") return zoomBy(v, STEP), true;
  if (e.key === "-" || e.key === "−") return zoomBy(v, 1 / STEP), true;
  const key = e.key.toLowerCase();
  if (key === "z") return toggleWhole(v), true;
  if (key === "r") return resetLook(v), true;
  return e.key === " " && v.s > 0; // held while dragging; the page must not scroll
}
