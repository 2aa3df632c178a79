// The grid: selection by mouse, touch and keyboard.

const SIZES = { S: 92, M: 140, L: 212 };

function buildGrid(s) {
  s.cells = new Map();
  s.ui.list = el("div", "cells", { role: "listbox", "aria-multiselectable": "true", "aria-label": "Images", tabindex: "0" });
  s.ui.scroller = el("div", "scroller", {}, s.ui.list);
  s.ui.view.replaceChildren(s.ui.scroller);
  s.ui.sizes = el("div", "sizes", { role: "group", "aria-label": "Picture size" });
  for (const size of Object.keys(SIZES)) {
    const node = button(size, "", `Picture size ${size}`, () => setSize(s, size));
    node.dataset.size = size;
    s.ui.sizes.append(node);
  }
  s.ui.tools.append(s.ui.sizes);
  if (s.data.mode === "review") {
    s.ui.open = button("Explain", "", "Why the model says so", () => s.open(targets(s)[0]));
    s.ui.tools.prepend(s.ui.open);
  }
  if (s.data.similar) {
    s.ui.like = button("Similar", "", "Find images that look like the selected ones", () => s.trigger("like", targets(s)));
    s.ui.tools.prepend(s.ui.like);
  }
  setSize(s, remembered("cnsapp.size") || "M");
  listenToGrid(s);
}

function setSize(s, size) {
  s.size = size in SIZES ? size : "M";
  try { localStorage.setItem("cnsapp.size", s.size); } catch (error) { /* private mode: not remembered */ }
  s.ui.list.style.setProperty("--cell", `${SIZES[s.size]}px`);
  s.ui.list.dataset.size = s.size;
  for (const node of s.ui.sizes.children) node.setAttribute("aria-pressed", String(node.dataset.size === s.size));
}

function remembered(key) {
  try { return localStorage.getItem(key); } catch (error) { return null; }
}

function fillGrid(s) {
  const sign = s.data.images.map((row) => row.id).join();
  const same = s.gridSign === sign;
  if (!same) rememberPlace(s);
  s.gridSign = sign;
  s.images = s.data.images;
  s.at = new Map(s.images.map((row, i) => [row.id, i]));
  if (same) return s.images.forEach((row) => paintBadge(s.cells.get(row.id), row));
  s.selected.clear();
  s.focus = s.anchor = 0;
  s.cells = new Map(s.images.map((row) => [row.id, makeCell(s, row)]));
  s.ui.list.replaceChildren(...[...s.cells.values()].map((cell) => cell.root));
  if (!s.images.length) s.ui.list.append(el("p", "empty", { text: s.data.empty || "No image matches." }));
  s.ui.scroller.scrollTop = 0;
  recallPlace(s);
}

function paintSelection(s) {
  s.images.forEach((row, i) => {
    const { root } = s.cells.get(row.id);
    const selected = s.selected.has(row.id);
    if (root.getAttribute("aria-selected") !== String(selected)) root.setAttribute("aria-selected", String(selected));
    root.classList.toggle("focus", i === s.focus);
  });
  const focused = s.images[s.focus];
  if (focused) s.ui.list.setAttribute("aria-activedescendant", `cell-${focused.id}`);
  const n = s.selected.size;
  s.say(n ? `${number(n)} of ${number(s.images.length)} selected` : images(s.images.length));
  paintChoice(s, targets(s));
  for (const node of [s.ui.open, s.ui.like]) if (node) node.disabled = !targets(s).length;
}

// What a key labels: the selection, or else the framed image.
function targets(s) {
  if (s.big && s.big.open) return [s.images[s.focus].id];
  if (s.selected.size) return s.images.filter((row) => s.selected.has(row.id)).map((row) => row.id);
  return s.images[s.focus] ? [s.images[s.focus].id] : [];
}

function selectRange(s, from, to, keep = false) {
  if (!keep) s.selected.clear();
  for (let i = Math.min(from, to); i <= Math.max(from, to); i++) s.selected.add(s.images[i].id);
}

function toggle(s, i) {
  if (s.used) s.selected.clear();
  const { id } = s.images[i];
  if (!s.selected.delete(id)) s.selected.add(id);
}

function selectAll(s) {
  if (s.images.length) selectRange(s, 0, s.images.length - 1);
  s.used = false;
  paintSelection(s);
}

function invert(s) {
  const not = s.images.filter((row) => !s.selected.has(row.id)).map((row) => row.id);
  s.selected = new Set(not);
  s.used = false;
  paintSelection(s);
}

function moveFocus(s, to, extend) {
  if (!s.images.length) return;
  if (s.used) s.selected.clear();
  const from = s.focus;
  s.focus = Math.max(0, Math.min(s.images.length - 1, to));
  if (extend) {
    if (s.used || !s.selected.size) s.anchor = from;
    selectRange(s, s.anchor, s.focus);
  } else {
    // a lone selected image travels with the frame; a chosen set stays until it has been labelled
    if (s.selected.size === 1) s.selected.clear();
    s.anchor = s.focus;
  }
  s.used = false;
  paintSelection(s);
  s.cells.get(s.images[s.focus].id).root.scrollIntoView({ block: "nearest" });
  if (s.big && s.big.open) showBig(s);
}

function columns(s) {
  const cells = s.ui.list.children;
  let n = 1;
  while (n < cells.length && cells[n].offsetTop === cells[0].offsetTop) n++;
  return n;
}

function listenToGrid(s) {
  const { list, scroller } = s.ui;
  const placeOf = (e) => {
    const cell = e.target.closest && e.target.closest(".cell");
    return cell ? s.at.get(Number(cell.dataset.id)) : undefined;
  };
  list.addEventListener("click", (e) => {
    const i = placeOf(e);
    if (s.swallowClick) return void (s.swallowClick = false);
    if (i === undefined) s.selected.clear();
    else clickCell(s, i, e);
    s.used = false;
    paintSelection(s);
  });
  list.addEventListener("dblclick", (e) => placeOf(e) !== undefined && openBig(s, placeOf(e)));
  scroller.addEventListener("pointerdown", (e) => {
    s.swallowClick = false;
    if (e.pointerType === "mouse") return e.button === 0 && startBox(s, e);
    startLongPress(s, e, placeOf(e));
  });
  scroller.addEventListener("scroll", () => (s.scrolledTo = scroller.scrollTop), { passive: true });
  list.addEventListener("contextmenu", (e) => s.pressed && e.preventDefault());
}

function clickCell(s, i, e) {
  if (e.shiftKey) selectRange(s, s.anchor, i, e.ctrlKey || e.metaKey);
  else if (e.ctrlKey || e.metaKey) toggle(s, i), (s.anchor = i);
  else selectRange(s, i, i), (s.anchor = i);
  s.focus = i;
}

function startLongPress(s, start, i) {
  if (i === undefined) return;
  s.pressed = true;
  const stop = new AbortController();
  const timer = setTimeout(() => {
    toggle(s, i);
    s.focus = s.anchor = i;
    s.used = false;
    s.swallowClick = true;
    paintSelection(s);
  }, 450);
  const end = () => (clearTimeout(timer), stop.abort(), setTimeout(() => (s.pressed = false), 50));
  const moved = (e) => Math.hypot(e.clientX - start.clientX, e.clientY - start.clientY) > 10 && end();
  window.addEventListener("pointermove", moved, { signal: stop.signal });
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, end, { signal: stop.signal });
}

function startBox(s, start) {
  const { list, scroller } = s.ui;
  const origin = inList(s, start);
  const base = start.ctrlKey || start.metaKey || start.shiftKey ? new Set(s.selected) : new Set();
  const stop = new AbortController();
  const box = el("div", "box");
  let rects = null;
  let last = start;
  let ticking = 0;
  const draw = () => {
    const here = inList(s, last);
    const [x0, x1] = [Math.min(origin.x, here.x), Math.max(origin.x, here.x)];
    const [y0, y1] = [Math.min(origin.y, here.y), Math.max(origin.y, here.y)];
    Object.assign(box.style, { left: `${x0}px`, top: `${y0}px`, width: `${x1 - x0}px`, height: `${y1 - y0}px` });
    s.selected = new Set(base);
    for (const r of rects) if (r.x0 < x1 && r.x1 > x0 && r.y0 < y1 && r.y1 > y0) s.selected.add(r.id);
    s.used = false;
    paintSelection(s);
  };
  const scroll = () => {
    const edge = scroller.getBoundingClientRect();
    const step = last.clientY < edge.top + 24 ? -14 : last.clientY > edge.bottom - 24 ? 14 : 0;
    if (step) scroller.scrollTop += step, draw();
    ticking = requestAnimationFrame(scroll);
  };
  const move = (e) => {
    last = e;
    if (!rects) {
      if (Math.hypot(e.clientX - start.clientX, e.clientY - start.clientY) < 6) return;
      rects = s.images.map((row) => {
        const { offsetLeft: x, offsetTop: y, offsetWidth: w, offsetHeight: h } = s.cells.get(row.id).root;
        return { id: row.id, x0: x, x1: x + w, y0: y, y1: y + h };
      });
      list.append(box);
      ticking = requestAnimationFrame(scroll);
    }
    e.preventDefault();
    draw();
  };
  const end = () => {
    stop.abort();
    cancelAnimationFrame(ticking);
    box.remove();
    if (!rects) return;
    s.swallowClick = true; // the click that follows the drag is not one
    setTimeout(() => (s.swallowClick = false), 0);
  };
  window.addEventListener("pointermove", move, { signal: stop.signal });
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, end, { signal: stop.signal });
}

function inList(s, e) {
  const rect = s.ui.list.getBoundingClientRect();
  return { x: e.clientX - rect.left, y: e.clientY - rect.top };
}

function gridKey(s, e) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(s), ArrowDown: columns(s), Home: -1e6, End: 1e6 };
  const big = s.big && s.big.open;
  if (big) Object.assign(steps, { PageUp: -1, PageDown: 1 });
  else if (e.key === "PageUp" || e.key === "PageDown") return screenful(s, e.key === "PageUp" ? -1 : 1, e.shiftKey);
  if (e.key in steps) moveFocus(s, s.focus + steps[e.key], e.shiftKey && !big);
  else if (e.key === "Enter" && !big) openBig(s, s.focus);
  else if (e.key === " ") {
    if (!big && s.images.length) toggle(s, s.focus), (s.used = false), (s.anchor = s.focus), paintSelection(s);
  } else if (e.key === "Escape" && !big) s.selected.clear(), paintSelection(s);
  else return false;
  return true;
}

// A screen's height of rows, less one that stays in sight.
function screenful(s, way, extend) {
  if (!s.images.length) return true;
  const rows = Math.max(1, Math.floor(s.ui.scroller.clientHeight / s.cells.get(s.images[0].id).root.offsetHeight) - 1);
  const n = columns(s);
  const to = s.focus + way * rows * n;
  const last = s.images.length - 1;
  moveFocus(s, to < 0 ? s.focus % n : to > last ? last : to, extend);
  return true;
}

// After a label: a lone framed image gives way to the next one; a selection stays, to be corrected.
function afterLabel(s, ids) {
  if (s.big && s.big.open) {
    if (s.focus < s.images.length - 1) s.focus += 1;
    else s.say("That was the last image of this page.");
    s.selected.clear();
    showBig(s);
  } else if (!s.selected.size && ids.length === 1 && s.focus < s.images.length - 1) {
    s.focus = s.anchor = s.focus + 1;
    s.cells.get(s.images[s.focus].id).root.scrollIntoView({ block: "nearest" });
  } else s.used = true;
}

