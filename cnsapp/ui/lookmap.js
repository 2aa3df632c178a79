// A map of images: up to 100,000 points on a canvas, an outline drawn by mouse, pictures on hover.
// Only the outline goes to the server; which images lie in it is worked out on both sides alike.
const MOUNTED = new WeakMap();
const SIDE = 65535; // of the map, in its own steps
const PAD = 16;
const CELLS = 128; // a side, for finding the point under the mouse
const REACH = 9; // pixels between mouse and point
const CORNERS = 240; // of an outline that is sent
const TURNS = 16;
const TEN = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#882255", "#999933", "#44AA99", "#AA4499"];
const count = (n) => n.toLocaleString("en-US");
const images = (n) => `${count(n)} ${n === 1 ? "image" : "images"}`;

export default function ({ data, parentElement, setStateValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { zoom: 1, x: 0, y: 0, hidden: new Set(), picked: null, n: 0, tool: "lasso", names: new Map() };
    MOUNTED.set(parentElement, s);
    build(s, parentElement);
  }
  s.send = (region) => setStateValue("region", region);
  take(s, data);
  return () => {
    s.sight.disconnect();
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function build(s, parent) {
  s.host = node("div", "lookmap");
  const tools = node("div", "tools");
  s.buttons = {};
  const add = (name, words, title, act) => {
    const button = node("button", "", words);
    Object.assign(button, { type: "button", title });
    button.addEventListener("click", act);
    s.buttons[name] = button;
    tools.append(button);
  };
  add("lasso", "Select", "Drag around points; with Shift a rectangle", () => useTool(s, "lasso"));
  add("move", "Move", "Drag the map; the right mouse button does so too", () => useTool(s, "move"));
  add("in", "+", "Zoom in", () => zoom(s, 1.5));
  add("out", "−", "Zoom out", () => zoom(s, 1 / 1.5));
  add("all", "All", "Show the whole map", () => home(s));
  add("clear", "Clear", "Select nothing (Escape)", () => pick(s, null));
  s.said = node("span", "said");
  s.said.setAttribute("role", "status");
  tools.append(s.said);
  s.stage = node("div", "stage");
  Object.assign(s.stage, { tabIndex: 0 });
  s.stage.setAttribute("role", "application");
  s.base = node("canvas");
  s.over = node("canvas");
  s.tip = node("div", "tip");
  s.tip.hidden = true;
  s.stage.append(s.base, s.over, s.tip);
  s.legend = node("div", "legend");
  s.host.append(tools, s.stage, s.legend);
  parent.append(s.host);
  listen(s);
  s.sight = new ResizeObserver(() => draw(s));
  s.sight.observe(s.stage);
  useTool(s, "lasso");
}

function decode(text, Kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

function take(s, data) {
  if (data.sign === s.sign) return;
  s.sign = data.sign;
  s.data = data;
  s.ids = decode(data.ids, Int32Array);
  s.at = decode(data.places, Uint16Array);
  s.codes = decode(data.codes, Uint8Array);
  s.n = s.ids.length;
  if (data.version !== s.version) {
    s.version = data.version; // another map: nothing of the old one lies where it was
    s.picked = null;
    Object.assign(s, { zoom: 1, x: 0, y: 0 });
  }
  if (data.colored !== s.colored) s.hidden.clear(), (s.colored = data.colored);
  s.stage.setAttribute("aria-label", `Map of ${images(s.n)} by looks. Arrow keys move it, plus and minus zoom, Escape clears the selection.`);
  sortByColor(s);
  sortByPlace(s);
  inside(s);
  showLegend(s);
  draw(s);
}

// The order in which points are drawn: those without a key first, below all others.
function sortByColor(s) {
  s.starts = new Uint32Array(s.data.keys.length + 1);
  for (const code of s.codes) s.starts[code + 1]++;
  for (let k = 1; k < s.starts.length; k++) s.starts[k] += s.starts[k - 1];
  const next = s.starts.slice();
  s.order = new Uint32Array(s.n);
  for (let i = 0; i < s.n; i++) s.order[next[s.codes[i]]++] = i;
}

function cellOf(value) {
  return Math.max(0, Math.min(CELLS - 1, (value * CELLS / (SIDE + 1)) | 0));
}

function sortByPlace(s) {
  s.cells = new Uint32Array(CELLS * CELLS + 1);
  const cell = (i) => cellOf(s.at[2 * i + 1]) * CELLS + cellOf(s.at[2 * i]);
  for (let i = 0; i < s.n; i++) s.cells[cell(i) + 1]++;
  for (let k = 1; k < s.cells.length; k++) s.cells[k] += s.cells[k - 1];
  const next = s.cells.slice();
  s.inCell = new Uint32Array(s.n);
  for (let i = 0; i < s.n; i++) s.inCell[next[cell(i)]++] = i;
}

// Where the map lies on the screen: pixels a step, and the place of its corner.
function frame(s) {
  const { clientWidth: w, clientHeight: h } = s.stage;
  const k = Math.max(1, Math.min(w, h) - 2 * PAD) / SIDE * s.zoom;
  return { w, h, k, left: w / 2 - SIDE / 2 * k + s.x, top: h / 2 - SIDE / 2 * k + s.y };
}

function isDark(s) {
  const probe = getComputedStyle(s.host).color.match(/[\d.]+/g).map(Number);
  return probe[0] + probe[1] + probe[2] > 382; // light words on a dark ground
}

function colorOf(s, code) {
  const key = s.data.keys[code];
  if (code === 0) return isDark(s) ? "#5d6a6e" : "#b3bcbf";
  if (key.color) return key.color;
  return key.rest ? (isDark(s) ? "#8d999d" : "#7a868a") : TEN[(code - 1) % TEN.length];
}

function sized(canvas, w, h) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  return context;
}

function draw(s) {
  if (s.waiting) return;
  s.waiting = requestAnimationFrame(() => {
    s.waiting = 0;
    if (s.data && s.stage.clientWidth) paint(s), paintOver(s);
  });
}

function paint(s) {
  const began = performance.now();
  const place = frame(s);
  const c = sized(s.base, place.w, place.h);
  const side = Math.min(9, (s.n > 20000 ? 2 : s.n > 4000 ? 3.5 : 6) * Math.sqrt(s.zoom));
  const some = s.picked && s.inside;
  s.colors = s.data.keys.map((_, code) => colorOf(s, code));
  c.globalAlpha = some ? 0.16 : s.n > 20000 ? 0.75 : 0.85;
  dots(s, c, place, side, null);
  c.globalAlpha = 1;
  if (some) dots(s, c, place, side + 1, s.inside);
  s.stage.dataset.drawn = s.sign;
  s.stage.dataset.ms = (performance.now() - began).toFixed(1);
}

// Points without a key first, then a sixteenth of each key in turn: none hides all the others.
function dots(s, c, place, side, only) {
  someDots(s, c, place, side, only, 0, 0, 1);
  for (let turn = 0; turn < TURNS; turn++) {
    for (let code = 1; code < s.data.keys.length; code++) someDots(s, c, place, side, only, code, turn, TURNS);
  }
}

function someDots(s, c, { w, h, k, left, top }, side, only, code, first, step) {
  if (s.hidden.has(code)) return;
  const round = s.n <= 4000;
  c.fillStyle = s.colors[code];
  for (let j = s.starts[code] + first; j < s.starts[code + 1]; j += step) {
    const i = s.order[j];
    if (only && !only[i]) continue;
    const x = left + s.at[2 * i] * k;
    const y = top + s.at[2 * i + 1] * k;
    if (x < -side || y < -side || x > w + side || y > h + side) continue;
    if (round) c.beginPath(), c.arc(x, y, side / 2, 0, 7), c.fill();
    else c.fillRect(x - side / 2, y - side / 2, side, side);
  }
}

function paintOver(s) {
  const { w, h, k, left, top } = frame(s);
  const c = sized(s.over, w, h);
  const accent = getComputedStyle(s.host).getPropertyValue("--st-primary-color") || "#0F6E84";
  const outline = s.drawing || (s.picked && s.picked.outline);
  c.strokeStyle = accent;
  c.lineWidth = 1.5;
  if (outline && outline.length > 1) {
    c.beginPath();
    outline.forEach(([x, y], i) => c[i ? "lineTo" : "moveTo"](left + x * k, top + y * k));
    c.closePath();
    c.globalAlpha = 0.1;
    c.fillStyle = accent;
    c.fill();
    c.globalAlpha = 1;
    c.stroke();
  }
  if (s.hover >= 0) {
    c.strokeStyle = isDark(s) ? "#fff" : "#14191b";
    c.lineWidth = 2;
    c.beginPath();
    c.arc(left + s.at[2 * s.hover] * k, top + s.at[2 * s.hover + 1] * k, 6, 0, 7);
    c.stroke();
  }
}

// The same rule as `MapPoints.inside`: how often a line to the right crosses the outline.
function inside(s) {
  s.inside = null;
  s.nInside = 0;
  if (s.picked) {
    const outline = s.picked.outline;
    s.inside = new Uint8Array(s.n);
    for (let a = 0; a < outline.length; a++) {
      const [x1, y1] = outline[a];
      const [x2, y2] = outline[(a + 1) % outline.length];
      if (y1 === y2) continue;
      const slope = (x2 - x1) / (y2 - y1);
      for (let i = 0; i < s.n; i++) {
        const y = s.at[2 * i + 1];
        if (y1 > y !== y2 > y && s.at[2 * i] < slope * (y - y1) + x1) s.inside[i] ^= 1;
      }
    }
    for (let i = 0; i < s.n; i++) s.nInside += s.inside[i];
  }
  s.buttons.clear.disabled = !s.picked;
  s.said.textContent = s.picked ? `${count(s.nInside)} of ${images(s.n)}` : images(s.n);
}

function pick(s, outline) {
  s.picked = outline && { outline };
  inside(s);
  if (s.picked && !s.nInside) s.picked = null, inside(s);
  s.send(s.picked && { version: s.version, outline });
  draw(s);
}

function useTool(s, tool) {
  s.tool = tool;
  for (const name of ["lasso", "move"]) s.buttons[name].setAttribute("aria-pressed", String(name === tool));
  s.stage.classList.toggle("moving", tool === "move");
}

function zoom(s, by, px, py) {
  const { w, h, k, left, top } = frame(s);
  const [cx, cy] = px === undefined ? [w / 2, h / 2] : [px, py];
  const [x, y] = [(cx - left) / k, (cy - top) / k]; // stays under the mouse
  s.zoom = Math.max(1, Math.min(60, s.zoom * by));
  const now = frame(s);
  s.x += cx - (now.left + x * now.k);
  s.y += cy - (now.top + y * now.k);
  if (s.zoom === 1) s.x = s.y = 0;
  draw(s);
}

function home(s) {
  Object.assign(s, { zoom: 1, x: 0, y: 0 });
  draw(s);
}

function nearest(s, px, py) {
  const { k, left, top } = frame(s);
  const [x, y, reach] = [(px - left) / k, (py - top) / k, REACH / k];
  let [best, least] = [-1, reach * reach];
  for (let row = cellOf(y - reach); row <= cellOf(y + reach); row++) {
    for (let column = cellOf(x - reach); column <= cellOf(x + reach); column++) {
      const cell = row * CELLS + column;
      for (let j = s.cells[cell]; j < s.cells[cell + 1]; j++) {
        const i = s.inCell[j];
        const apart = (s.at[2 * i] - x) ** 2 + (s.at[2 * i + 1] - y) ** 2;
        if (apart < least && !s.hidden.has(s.codes[i])) [best, least] = [i, apart];
      }
    }
  }
  return best;
}

function point(s, i) {
  if (i === s.hover) return;
  s.hover = i;
  s.tip.hidden = true;
  clearTimeout(s.resting);
  if (i >= 0) s.resting = setTimeout(() => showTip(s, i), 40);
  paintOver(s);
}

function showTip(s, i) {
  const id = s.ids[i];
  const { w, h, k, left, top } = frame(s);
  const [x, y] = [left + s.at[2 * i] * k, top + s.at[2 * i + 1] * k];
  const picture = node("img");
  picture.alt = "";
  picture.src = `/img/thumb/${id}?v=${encodeURIComponent(s.version.slice(-8))}`;
  const name = node("span", "name", s.names.get(id) || `Image ${id}`);
  const key = node("span", "key");
  const dot = node("i");
  dot.style.background = colorOf(s, s.codes[i]);
  key.append(dot, node("span", "", s.data.keys[s.codes[i]].name));
  s.tip.replaceChildren(picture, name, key);
  s.tip.hidden = false;
  s.tip.style.left = `${x > w / 2 ? x - s.tip.offsetWidth - 12 : x + 12}px`;
  s.tip.style.top = `${Math.max(4, Math.min(h - s.tip.offsetHeight - 4, y - 60))}px`;
  if (!s.names.has(id)) askName(s, id, name, () => s.hover === i);
}

async function askName(s, id, place, isWanted) {
  try {
    const answer = await fetch(`/img/name/${id}.json`);
    if (!answer.ok) return;
    s.names.set(id, (await answer.json()).name.split("/").pop());
    if (isWanted()) place.textContent = s.names.get(id);
  } catch {
    // the number stays
  }
}

function listen(s) {
  const where = (e) => {
    const box = s.stage.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  const onMap = ([px, py]) => {
    const { k, left, top } = frame(s);
    return [(px - left) / k, (py - top) / k];
  };
  s.hover = -1;
  s.stage.addEventListener("contextmenu", (e) => e.preventDefault());
  s.stage.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom(s, Math.exp(-e.deltaY / 400), ...where(e));
    point(s, -1);
  }, { passive: false });
  s.stage.addEventListener("pointerdown", (e) => {
    if (e.button > 2 || s.drag) return;
    s.stage.setPointerCapture(e.pointerId);
    s.stage.focus({ preventScroll: true });
    e.preventDefault();
    point(s, -1);
    s.drag = { at: where(e), moves: e.button !== 0 || s.tool === "move", box: e.shiftKey, far: false };
    s.drawing = s.drag.moves ? null : [onMap(s.drag.at)];
  });
  s.stage.addEventListener("pointermove", (e) => {
    const at = where(e);
    if (!s.drag) return point(s, nearest(s, ...at));
    const [dx, dy] = [at[0] - s.drag.at[0], at[1] - s.drag.at[1]];
    if (s.drag.moves) {
      Object.assign(s, { x: s.x + dx, y: s.y + dy });
      s.drag.at = at;
      return draw(s);
    }
    if (Math.hypot(dx, dy) > 6) s.drag.far = true;
    const [a, b] = [onMap(s.drag.at), onMap(at)];
    if (s.drag.box) s.drawing = [a, [b[0], a[1]], b, [a[0], b[1]]];
    else s.drawing.push(b);
    paintOver(s);
  });
  const end = (e) => {
    if (!s.drag) return;
    const { moves, far } = s.drag;
    const outline = s.drawing;
    s.drag = s.drawing = null;
    if (moves) return;
    if (e.type === "pointercancel") return paintOver(s);
    pick(s, far ? fewer(outline) : null); // a click beside all selects nothing
  };
  s.stage.addEventListener("pointerup", end);
  s.stage.addEventListener("pointercancel", end);
  s.stage.addEventListener("pointerleave", () => point(s, -1));
  s.stage.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (step) Object.assign(s, { x: s.x + step[0], y: s.y + step[1] }), draw(s);
    else if (e.key === "+" || e.key === "=") zoom(s, 1.5);
    else if (e.key === "-") zoom(s, 1 / 1.5);
    else if (e.key === "Escape") pick(s, null);
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
}

// An outline of whole steps with few corners: what is sent is what is drawn.
function fewer(outline) {
  const step = Math.max(1, Math.ceil(outline.length / CORNERS));
  return outline.filter((_, i) => i % step === 0).map(([x, y]) => [Math.round(x) + 0.5, Math.round(y) + 0.5]);
}

function showLegend(s) {
  s.legend.replaceChildren(
    ...s.data.keys.map((key, code) => {
      if (!key.n) return node("span", "none");
      const button = node("button");
      button.type = "button";
      button.title = "Show or hide these points";
      button.setAttribute("aria-pressed", String(!s.hidden.has(code)));
      const dot = node("i");
      dot.style.background = colorOf(s, code);
      button.append(dot, node("span", "", key.name), node("em", "", count(key.n)));
      button.addEventListener("click", () => {
        if (!s.hidden.delete(code)) s.hidden.add(code);
        button.setAttribute("aria-pressed", String(!s.hidden.has(code)));
        draw(s);
      });
      return button;
    }),
  );
}
