// Clusters of look-alikes: pictures of their clear images, and a key or a click that labels these.
// Labels go to /api/looks/clear at once; the page is drawn anew only when something else is asked for.
const MOUNTED = new WeakMap();
const INLINE = 9; // classes with a button of their own in every row; the others share a list
const TRIES = 4;
const CLEAR = "Clear: far nearer to the middle of this cluster than to any other, as half of all images are. The pictures are spread over the clear ones, from the most typical to the least clear. The others lie on a border: label them one by one, for suggestions learnt from clear images alone are too sure of them.";
const count = (n) => n.toLocaleString("en-US");
const plural = (n, one) => `${count(n)} ${n === 1 ? one : `${one}s`}`;

export default function ({ data, parentElement, setTriggerValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: node("div", "clusters"), done: new Map(), stack: [], current: null, last: Promise.resolve() };
    s.status = node("div", "status");
    s.status.setAttribute("role", "status");
    s.list = node("div", "list");
    s.host.append(s.list, s.status);
    parentElement.append(s.host);
    MOUNTED.set(parentElement, s);
    s.onKey = (e) => onKey(s, e);
    document.addEventListener("keydown", s.onKey);
  }
  s.open = (id) => setTriggerValue("open", [s.data.version, id]);
  take(s, data);
  return () => {
    document.removeEventListener("keydown", s.onKey);
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function take(s, data) {
  const sign = JSON.stringify(data);
  if (sign === s.sign) return;
  if (!s.data || s.data.version !== data.version || s.data.project !== data.project) {
    s.done.clear(); // other clusters
    s.stack = [];
    s.current = null;
  }
  Object.assign(s, { sign, data });
  for (const row of data.rows) {
    const done = s.done.get(row.id);
    const newer = done && !done.busy && data.as_of >= done.asOf;
    if (newer && (done.error || todo(s, row))) s.done.delete(row.id); // taken back or labelled elsewhere
  }
  s.rows = new Map(data.rows.map((row) => [row.id, rowOf(s, row)]));
  s.list.replaceChildren(...[...s.rows.values()].map((parts) => parts.host));
  for (const row of data.rows) paint(s, row);
  const known = s.rows.has(s.current) && isOpen(s, rowBy(s, s.current));
  frame(s, known ? s.current : (data.rows.find((row) => isOpen(s, row)) || { id: null }).id, false);
}

const rowBy = (s, id) => s.data.rows.find((row) => row.id === id);
const todo = (s, row) => (s.data.also ? row.clear : row.free);
const isOpen = (s, row) => todo(s, row) > 0 && (!s.done.has(row.id) || !!s.done.get(row.id).error);

function rowOf(s, row) {
  const host = node("section", "row");
  host.dataset.id = row.id;
  host.setAttribute("aria-label", `Cluster ${row.id + 1}`);
  host.addEventListener("pointerdown", () => frame(s, row.id, false));
  const pictures = node("button", "pictures");
  Object.assign(pictures, { type: "button", title: "Show all images of this cluster" });
  for (const shown of row.images) {
    const img = node("img");
    Object.assign(img, { src: shown.url, alt: "", loading: "lazy", title: shown.name, width: 72, height: 72 });
    pictures.append(img);
  }
  const facts = node("div", "facts");
  const title = node("div", "title");
  title.append(node("b", "", `Cluster ${row.id + 1}`));
  const clear = node("span", "clear", `${count(row.clear)} clear of ${count(row.n)}`);
  clear.title = CLEAR;
  const said = node("div", "said");
  if (!row.labelled.length) said.textContent = row.said;
  else said.append(`${row.said} `, ...row.labelled.map(swatchOf));
  facts.append(title, clear, said);
  const act = node("div", "act");
  const open = node("button", "open", "Open");
  Object.assign(open, { type: "button", title: "All its images, those on the border marked" });
  for (const button of [open, pictures]) button.addEventListener("click", () => s.open(row.id));
  host.append(pictures, facts, act, open);
  return { host, act };
}

function swatchOf({ name, color, n }) {
  const made = node("span", "named");
  const dot = node("i");
  dot.style.background = color;
  made.append(dot, `${name} ${count(n)}`);
  return made;
}

function paint(s, row) {
  const { host, act } = s.rows.get(row.id);
  const done = s.done.get(row.id);
  host.classList.toggle("done", !isOpen(s, row));
  if (done && !done.error) return act.replaceChildren(...whatWasDone(s, row, done));
  const n = todo(s, row);
  if (!n) {
    const words = !row.clear ? "No image of it is clear: open it, or label it one by one." : "All clear ones are looked at.";
    return act.replaceChildren(node("span", "quiet", words));
  }
  const what = row.clear === 1 ? "the clear one" : n < row.clear ? `the ${count(n)} clear ones left` : `the ${count(n)} clear ones`;
  const chips = node("div", "chips");
  chips.append(...s.data.classes.slice(0, INLINE).map((c) => chipOf(s, row, c, what)));
  if (s.data.classes.length > INLINE) chips.append(...otherClasses(s, row, what));
  act.replaceChildren(node("span", "quiet", `Label ${what} as`), chips);
  if (done) act.append(node("span", "error", done.error));
}

function whatWasDone(s, row, done) {
  if (done.busy) return [node("span", "quiet", done.busy)];
  const said = done.n ? `✓ ${plural(done.n, "image")} labelled as ${done.name}` : "Somebody labelled them meanwhile.";
  const parts = [node("span", "done-words", said)];
  if (!done.n) return parts;
  const undo = node("button", "undo", "Undo");
  Object.assign(undo, { type: "button", title: "Take these labels back (key U for the last ones)" });
  undo.addEventListener("click", () => takeBack(s, row.id));
  return [...parts, undo];
}

function chipOf(s, row, c, what) {
  const chip = node("button", "chip");
  const dot = node("i");
  dot.style.background = c.color;
  chip.append(dot, node("span", "", c.name));
  if (c.hotkey && c.hotkey.length === 1) chip.append(node("kbd", "", c.hotkey.toUpperCase()));
  Object.assign(chip, { type: "button", title: `Label ${what} as ${c.name}`, disabled: !s.data.annotator });
  chip.setAttribute("aria-label", chip.title);
  chip.addEventListener("click", () => label(s, row.id, c));
  return chip;
}

function otherClasses(s, row, what) {
  const list = node("select");
  list.setAttribute("aria-label", "Another class");
  const others = s.data.classes.slice(INLINE);
  list.append(new Option("Another class…", ""), ...others.map((c) => new Option(c.name, c.id)));
  const go = node("button", "chip", "Label");
  Object.assign(go, { type: "button", disabled: true });
  list.addEventListener("change", () => {
    const chosen = others.find((c) => String(c.id) === list.value);
    go.disabled = !chosen || !s.data.annotator;
    go.title = chosen ? `Label ${what} as ${chosen.name}` : "";
  });
  go.addEventListener("click", () => label(s, row.id, others.find((c) => String(c.id) === list.value)));
  return [list, go];
}

// --- what is stored ---

// Names are made here, so that sending again after a lost answer stores nothing twice.
const newName = (what) => `${what}-${Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("")}`;

function label(s, id, c) {
  const row = rowBy(s, id);
  if (!c || !s.data.annotator || !isOpen(s, row)) return;
  const action = newName("looks");
  const { project, annotator, version, also } = s.data;
  s.done.set(id, { action, name: c.name, busy: `Labelling as ${c.name}…`, asOf: Infinity });
  s.stack.push(id);
  paint(s, row);
  const next = nextOpen(s, id);
  frame(s, next === null ? id : next, true);
  const message = { project_id: project, annotator, version, cluster_id: id, class_id: c.id, also_labelled: also, action };
  inTurn(s, id, action, async (done) => {
    const answer = await send("/api/looks/clear", message);
    Object.assign(done, { n: answer.stored, asOf: answer.as_of, busy: "" });
    return `${plural(answer.stored, "image")} of cluster ${id + 1} labelled as ${c.name}`;
  });
}

function takeBack(s, id) {
  const done = s.done.get(id);
  if (!done || done.error || done.leaving) return;
  done.leaving = true;
  const { project, annotator } = s.data;
  s.stack = s.stack.filter((other) => other !== id);
  const message = { project_id: project, annotator, action: done.action, name: newName("undo") };
  frame(s, id, true);
  inTurn(s, id, done.action, async () => {
    if (done.n) await send("/api/looks/undo", message);
    s.done.delete(id);
    return `Taken back: cluster ${id + 1}`;
  });
}

// One after the other, in the order of the keys: an undo never overtakes its label.
function inTurn(s, id, action, work) {
  s.last = s.last.then(async () => {
    const done = s.done.get(id);
    if (!done || done.action !== action || done.error) return;
    try {
      s.status.textContent = await work(done);
    } catch (error) {
      s.status.textContent = "";
      if (done.leaving) Object.assign(done, { leaving: false, busy: "" }), (s.status.textContent = error.message);
      else Object.assign(done, { error: error.message, busy: "", asOf: 0 });
      s.stack = s.stack.filter((other) => other !== id || !done.error);
    }
    const row = rowBy(s, id);
    if (row && s.rows.has(id)) paint(s, row);
    frame(s, s.current, false);
  });
}

async function send(path, message) {
  for (let attempt = 1; ; attempt++) {
    try {
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(message), credentials: "same-origin" });
      const answer = await response.json().catch(() => ({}));
      if (response.ok) return answer;
      if (response.status < 500 || attempt === TRIES) {
        throw Object.assign(new Error(answer.error || `The server answered ${response.status}.`), { told: true });
      }
    } catch (error) {
      if (error.told) throw error;
      if (attempt === TRIES) throw new Error("Nobody answers: the app may have been closed. Nothing was changed; try again.");
    }
    await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
  }
}

// --- the frame and the keys ---

function nextOpen(s, id) {
  const rows = s.data.rows;
  const at = rows.findIndex((row) => row.id === id);
  const found = [...rows.slice(at + 1), ...rows.slice(0, at)].find((row) => isOpen(s, row));
  return found ? found.id : null;
}

function frame(s, id, scroll) {
  s.current = id;
  for (const [other, { host }] of s.rows) host.classList.toggle("current", other === id);
  if (scroll && s.rows.has(id)) s.rows.get(id).host.scrollIntoView({ block: "nearest" });
}

function onKey(s, e) {
  const path = e.composedPath();
  const target = path[0];
  if (!s.host.isConnected || !s.host.offsetParent || e.defaultPrevented || e.repeat || e.isComposing) return;
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable) return;
  if (document.querySelector('[data-testid="stDialog"], [role="dialog"], [role="menu"], [role="listbox"]')) return;
  const free = path.includes(s.host) || target === document.body;
  if (free && (e.key === "ArrowDown" || e.key === "ArrowUp")) move(s, e.key === "ArrowDown" ? 1 : -1);
  else if (e.key === "Enter" && target === document.body && s.current !== null) s.open(s.current);
  else if (!press(s, e)) return;
  e.preventDefault();
}

function press(s, e) {
  const key = e.key.toLowerCase();
  const own = (c, k) => !!c.hotkey && c.hotkey.toLowerCase() === k;
  const find = (k) => s.data.classes.find((c) => own(c, k));
  const c = find(key) || (/^Digit\d$/.test(e.code) && !e.shiftKey ? find(e.code.slice(5)) : null);
  if (c && s.current !== null) return label(s, s.current, c), true;
  if (key !== "u" || e.shiftKey || !s.stack.length) return false;
  takeBack(s, s.stack[s.stack.length - 1]);
  return true;
}

function move(s, by) {
  const rows = s.data.rows;
  const at = rows.findIndex((row) => row.id === s.current);
  const to = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
  if (to) frame(s, to.id, true);
}
