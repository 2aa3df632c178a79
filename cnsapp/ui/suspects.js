// Labels that are probably wrong, one in focus and the others in a list beside it. A key decides; the
// decision goes to the outbox (labeller/outbox.js) and the next image is there at once. Figures and
// further lines are asked for behind that, so that the page never runs anew for a decision.
const MOUNTED = new WeakMap();
const PATH = "/api/label-errors";
const CHIPS = 12; // classes with a button of their own; more share a list
const FEW = 15; // lines left from which more are asked for
const PAIRS = 5; // pairs of classes with a button of their own
const CHORD = 1500; // ms between the two keys of a class

export default function ({ data, parentElement, setTriggerValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = mounted(parentElement);
    MOUNTED.set(parentElement, s);
  }
  s.open = (id) => setTriggerValue("open", id);
  s.train = () => setTriggerValue("train", true);
  takePage(s, data);
  return s.unmount;
}

function mounted(root) {
  const s = { client: randomId(), seq: 0, box: theOutbox(), stack: [], later: new Set(), pair: null };
  s.host = node("div", "suspects");
  s.status = node("div", "status");
  s.status.setAttribute("role", "status");
  s.figures = node("div", "figures");
  s.advice = node("div", "advice");
  s.pairs = node("div", "pairs");
  s.pairs.setAttribute("role", "group");
  s.pairs.setAttribute("aria-label", "Which pairs of classes the list shows");
  s.warning = node("div", "warning");
  s.warning.setAttribute("role", "alert");
  s.warning.hidden = true;
  s.list = node("div", "list");
  s.list.tabIndex = 0;
  s.list.setAttribute("role", "listbox");
  s.list.setAttribute("aria-label", "Labels that are probably wrong, the surest first");
  s.panel = node("section", "panel");
  s.panel.tabIndex = -1;
  s.panel.setAttribute("aria-label", "The suspected label");
  s.saved = node("span", "saved");
  s.body = node("div", "body");
  s.body.append(s.list, s.panel);
  s.host.append(s.figures, s.advice, s.pairs, s.warning, s.body, s.status);
  root.append(s.host);
  const resized = () => fit(s);
  window.addEventListener("resize", resized);
  const watch = new ResizeObserver(resized); // the page above grows while it is drawn
  watch.observe(s.host);
  const listener = (answer) => heard(s, answer);
  s.box.listeners.add(listener);
  const onKey = (e) => pressed(s, e);
  document.addEventListener("keydown", onKey);
  s.unmount = () => {
    s.gone = true;
    s.box.listeners.delete(listener);
    document.removeEventListener("keydown", onKey);
    window.removeEventListener("resize", resized);
    watch.disconnect();
    s.host.remove();
    MOUNTED.delete(root);
  };
  return s;
}

// As high as the window leaves room for, so that the keys stay in sight.
function fit(s) {
  const { host } = s.body.getRootNode();
  const main = host && host.closest('[data-testid="stMain"]');
  const top = s.body.getBoundingClientRect().top + (main ? main.scrollTop : 0);
  const room = window.innerHeight - top - 24;
  s.body.style.height = window.innerWidth > 1100 ? `${Math.round(Math.min(620, Math.max(430, room)))}px` : "";
}

// Data of the page: the same list again leaves everything where it is.
function takePage(s, data) {
  const before = s.data;
  s.data = data;
  s.classes = data.classes;
  if (before && before.version === data.version) {
    if (before.annotator !== data.annotator) {
      s.stack = []; // what somebody else decided is theirs to take back
      paintPanel(s);
    }
    return;
  }
  Object.assign(s, { stack: [], pair: null });
  s.later.clear();
  takeSummary(s, data.summary);
  takeList(s, data);
  if (!before) {
    s.panel.focus({ preventScroll: true });
    flush(s.box); // what an earlier page could not deliver
  }
}

// --- what is in the list ---

const onTheWay = (s) => new Set(s.box.items.filter((i) => i.project === s.data.project).map((i) => i.event.image_id));
const rowAt = (s, id) => s.rows.findIndex((row) => row.id === id);

function takeList(s, { rows, next }) {
  const sent = onTheWay(s);
  s.rows = rows.filter((row) => !sent.has(row.id));
  s.next = next;
  s.lines = new Map(s.rows.map((row) => [row.id, lineOf(s, row)]));
  s.list.replaceChildren(...s.rows.map((row) => s.lines.get(row.id)));
  const kept = s.rows.find((row) => row.id === s.current) || s.rows[0];
  show(s, kept ? kept.id : null);
}

function takeMore(s, { rows, next }) {
  const sent = onTheWay(s);
  s.next = next;
  for (const row of rows) {
    if (sent.has(row.id) || rowAt(s, row.id) >= 0 || s.stack.some((step) => step.row.id === row.id)) continue;
    s.rows.push(row);
    s.lines.set(row.id, lineOf(s, row));
    s.list.append(s.lines.get(row.id));
  }
  if (s.current === null && s.rows.length) show(s, s.rows[0].id);
  else if (s.current === null) paintPanel(s);
}

function lineOf(s, row) {
  const line = node("div", "line");
  line.dataset.id = row.id;
  line.id = `suspect-${row.id}`;
  line.setAttribute("role", "option");
  line.title = `${row.name}\n${row.reason}`;
  const img = node("img");
  Object.assign(img, { src: row.thumb, alt: "", loading: "lazy", width: 44, height: 44 });
  const text = node("div", "text");
  const names = node("div", "names");
  names.append(called(row.label), node("span", "arrow", "→"), called(row.to));
  text.append(names, node("div", "quiet", `${row.score.toFixed(2)}${row.sure ? "" : " · less sure"}`));
  line.setAttribute("aria-label", `${row.name}: labelled ${row.label.name}, looks like ${row.to.name}, ${row.score.toFixed(2)}`);
  line.append(img, text);
  line.addEventListener("click", () => show(s, row.id));
  return line;
}

function called({ name, color }) {
  const made = node("span", "called");
  if (color) {
    const dot = node("i");
    dot.style.background = color;
    made.append(dot);
  }
  made.append(node("span", "name", name));
  return made;
}

function show(s, id) {
  s.current = id;
  for (const [other, line] of s.lines) {
    const chosen = other === id;
    line.classList.toggle("current", chosen);
    line.classList.toggle("later", s.later.has(other));
    line.setAttribute("aria-selected", String(chosen));
  }
  const line = s.lines.get(id);
  if (line) {
    s.list.setAttribute("aria-activedescendant", line.id);
    const above = line.offsetTop - s.list.scrollTop;
    if (above < 0) s.list.scrollTop = line.offsetTop;
    else if (above + line.offsetHeight > s.list.clientHeight) s.list.scrollTop = line.offsetTop + line.offsetHeight - s.list.clientHeight;
  }
  paintPanel(s);
  fetchAhead(s);
  if (s.next && s.rows.length < FEW) ask(s, "more");
}

// The pictures that come next are there before they are shown.
function fetchAhead(s) {
  const at = Math.max(0, rowAt(s, s.current));
  for (const row of s.rows.slice(at + 1, at + 4)) new Image().src = row.view;
}

// --- the one in focus ---

function paintPanel(s) {
  const row = s.rows[rowAt(s, s.current)];
  if (!row) return s.panel.replaceChildren(nothing(s), foot(s, null));
  const picture = node("img", "picture");
  Object.assign(picture, { src: row.view, alt: row.name });
  const frame = node("div", "frame");
  picture.addEventListener("error", () => frame.classList.add("broken"));
  frame.append(picture, node("div", "gone", "This picture cannot be shown."));
  const facts = node("div", "facts");
  const title = node("h3");
  title.append("Labelled", called(row.label), "but looks like", called(row.to));
  const name = node("div", "quiet file", row.group ? `${row.name} · ${row.group}` : row.name);
  name.title = name.textContent;
  facts.append(title, name, measure(row), node("p", "reason", row.reason), neighbours(row), deciding(s, row));
  const top = node("div", "top");
  top.append(frame, facts);
  s.panel.replaceChildren(top, foot(s, row));
}

function measure(row) {
  const line = node("div", "measure");
  const track = node("span", "track");
  const bar = node("b");
  bar.style.width = `${Math.round(100 * row.score)}%`;
  track.append(bar);
  line.append(track, node("span", "", `${row.score.toFixed(2)} suspicion${row.sure ? "" : ", less sure"}`));
  line.title = "1: surely wrong; 0.5: label and suggestion are as likely";
  return line;
}

function neighbours(row) {
  const made = node("div", "neighbours");
  if (!row.near.length) return made;
  made.append(node("div", "quiet", "The labelled images that look most like it"));
  const line = node("div", "near");
  for (const one of row.near) {
    const cell = node("figure");
    const img = node("img");
    Object.assign(img, { src: one.url, alt: one.name, title: one.name, width: 76, height: 76 });
    const caption = node("figcaption");
    caption.append(called({ name: one.label, color: one.color }));
    cell.append(img, caption);
    line.append(cell);
  }
  made.append(line);
  return made;
}

function deciding(s, row) {
  const made = node("div", "deciding");
  const main = node("div", "main");
  const keep = button(`Keep ${row.label.name}`, "Space", () => decide(s, row.label.id));
  const change = button(`Change to ${row.to.name}`, "A", () => decide(s, row.to.id));
  if (!s.summary.doubted) change.classList.add("first");
  main.append(change, keep);
  const others = s.classes.filter((c) => c.id !== row.label.id && c.id !== row.to.id);
  const chips = node("div", "chips");
  if (others.length) chips.append(node("span", "quiet", "or it is"));
  chips.append(...others.slice(0, CHIPS).map((c) => chipOf(s, c)));
  if (others.length > CHIPS) chips.append(listOf(s, others.slice(CHIPS)));
  made.append(main, chips);
  if (!s.data.annotator) {
    for (const one of made.querySelectorAll("button, select")) one.disabled = true;
    made.append(node("div", "quiet", "Say first who is labelling, in the sidebar: every decision is kept with a name."));
  }
  return made;
}

function button(text, key, act) {
  const made = node("button", "act");
  made.type = "button";
  made.append(node("span", "", text), node("kbd", "", key));
  made.addEventListener("click", act);
  return made;
}

function chipOf(s, c) {
  const chip = node("button", "chip");
  chip.type = "button";
  chip.append(called(c));
  if (c.hotkey) chip.append(node("kbd", "", c.hotkey.toUpperCase()));
  chip.setAttribute("aria-label", `It is ${c.name}`);
  chip.addEventListener("click", () => decide(s, c.id));
  return chip;
}

function listOf(s, classes) {
  const list = node("select");
  list.setAttribute("aria-label", "Another class");
  list.append(new Option("Another class…", ""), ...classes.map((c) => new Option(c.name, c.id)));
  list.addEventListener("change", () => list.value && decide(s, Number(list.value)));
  return list;
}

function foot(s, row) {
  const made = node("div", "foot");
  if (row) {
    const unsure = button("Unsure", "X", () => decide(s, null));
    unsure.disabled = !s.data.annotator;
    made.append(button("Not now", "S", () => leave(s)), unsure);
  }
  s.undo = button("Undo", "U", () => takeBack(s));
  made.append(s.undo);
  if (row) {
    const why = button("Maps and probabilities", "", () => s.open(row.id));
    why.classList.add("plain");
    why.title = "Opens the image on the Explain page";
    made.append(why);
  }
  made.append(s.saved);
  paintSaved(s);
  return made;
}

function nothing(s) {
  const made = node("div", "nothing");
  if (s.asking) return made.append(node("b", "", "Looking for more…")), made;
  const why = s.pair ? "No label of this pair is left in the list." : "Nothing is left in the list.";
  made.append(node("b", "", why));
  if (s.later.size) made.append(node("div", "quiet", "Those put off with “Not now” come again when this view is opened anew."));
  if (s.pair) made.append(button("Show all pairs", "", () => choosePair(s, null)));
  return made;
}

// --- decisions ---

function decide(s, classId) {
  const at = rowAt(s, s.current);
  const row = s.rows[at];
  if (!row || !s.data.annotator) return;
  warn(s, "");
  const decision = classId === null ? "unsure" : classId === row.label.id ? "confirm" : "correct";
  const event = {
    client: s.client, seq: ++s.seq, image_id: row.id, sha: row.sha, source: "review", action: `${s.client}-${s.seq}`,
    kind: classId === null ? "unsure" : "label", decision, model_id: s.data.model, rev: row.rev,
  };
  if (classId !== null) event.class_id = classId;
  s.stack.push({ row, at, event });
  takeOut(s, at);
  const word = classId === null ? "unsure" : (s.classes.find((c) => c.id === classId) || row.label).name;
  say(s, `${row.name}: ${decision === "confirm" ? "kept" : "now"} ${word}`);
  // the screen first, the network after it
  addToOutbox(s.box, s.data.project, s.data.annotator, [event], { path: PATH });
}

// The line goes, the frame stays where it was: on the one behind it.
function takeOut(s, at) {
  const [row] = s.rows.splice(at, 1);
  s.later.delete(row.id);
  s.lines.get(row.id).remove();
  s.lines.delete(row.id);
  const coming = s.rows.slice(at).concat(s.rows.slice(0, at)).find((other) => !s.later.has(other.id));
  show(s, coming ? coming.id : s.rows.length ? s.rows[0].id : null);
  s.panel.focus({ preventScroll: true });
}

// Without a decision: it stays in the list and in all counts.
function leave(s) {
  const at = rowAt(s, s.current);
  if (at < 0) return;
  s.later.add(s.current);
  say(s, `${s.rows[at].name}: not now`);
  const coming = s.rows.slice(at + 1).concat(s.rows.slice(0, at)).find((row) => !s.later.has(row.id));
  if (coming) show(s, coming.id);
  else if (s.next) ask(s, "more");
  else say(s, "All that are left were put off.");
}

function takeBack(s) {
  const step = s.stack.pop();
  if (!step) return say(s, "Nothing to undo: only what was decided here since the view was opened.");
  const { client, seq, image_id, sha } = step.event;
  const event = {
    client: s.client, seq: ++s.seq, image_id, sha, kind: "undo", source: "review", action: `${s.client}-${s.seq}`,
    target: { client, seq },
  };
  putBack(s, step);
  say(s, `Taken back: ${step.row.name}`);
  addToOutbox(s.box, s.data.project, s.data.annotator, [event]);
}

function putBack(s, { row, at }) {
  if (rowAt(s, row.id) < 0) {
    const to = Math.min(at, s.rows.length);
    const before = s.rows[to];
    s.rows.splice(to, 0, row);
    s.lines.set(row.id, lineOf(s, row));
    s.list.insertBefore(s.lines.get(row.id), before ? s.lines.get(before.id) : null);
  }
  show(s, row.id);
  s.panel.focus({ preventScroll: true });
}

// What the server said, or (null) that more is on the way.
function heard(s, answer) {
  paintSaved(s);
  if (s.gone || !answer || answer.project !== s.data.project) return;
  const sent = onTheWay(s); // of these the answer is old: what takes them back is not stored yet
  for (const image of answer.images || []) {
    const row = s.rows[rowAt(s, image.id)];
    if (row && !sent.has(image.id)) row.rev = image.rev; // taken back: the next decision is about that label again
  }
  const refused = (answer.rejected || []).filter(({ client }) => client === s.client);
  const names = new Set(refused.map(nameOf));
  if (refused.length) {
    s.stack = s.stack.filter(({ event }) => !names.has(nameOf(event)));
    warn(s, refused[0].reason);
  }
  if (sent.size === 0) ask(s, refused.length ? "list" : "figures");
}

// --- what is asked for behind the decisions ---

// One question at a time: "figures", "more" lines, or the "list" from its top.
async function ask(s, what) {
  if (s.asking) return void (s.wanted = what === "figures" && s.wanted ? s.wanted : what);
  s.asking = what;
  const { project, model, version } = s.data;
  const { pair } = s;
  const asked = { project, model };
  if (what !== "figures") asked.page = 1;
  if (what === "more" && s.next) asked.after = s.next.join(",");
  if (pair) Object.assign(asked, { label: pair.label, to: pair.to });
  try {
    const answer = await askServer(PATH, asked);
    const same = !s.gone && s.data.version === version && s.pair === pair;
    s.asking = "";
    if (same) takeSummary(s, answer.summary);
    if (same && what === "list") takeList(s, answer);
    if (same && what === "more") takeMore(s, answer);
  } catch (error) {
    s.asking = "";
    if (!s.gone && what !== "figures") warn(s, error instanceof TypeError ? "Nobody answers: the app may have been closed. Decisions made are kept in this browser and sent again." : error.message);
  }
  const { wanted } = s;
  s.wanted = "";
  if (wanted && !s.gone) ask(s, wanted);
}

function takeSummary(s, summary) {
  s.summary = summary;
  s.figures.replaceChildren(
    ...summary.figures.map(([name, value, under]) => {
      const one = node("div", "figure");
      one.append(node("div", "quiet", name), node("div", "value", value), node("div", "quiet", under));
      return one;
    }),
  );
  s.advice.replaceChildren(node("span", "", summary.advice));
  if (summary.stop) {
    const again = node("button", "", "Train again");
    again.type = "button";
    again.addEventListener("click", () => s.train());
    s.advice.append(again);
  }
  s.advice.classList.toggle("stop", summary.stop);
  paintPairs(s);
}

function paintPairs(s) {
  const { pairs, n_open } = s.summary;
  const chosen = s.pair && (pairs.find((p) => same(p, s.pair)) || { ...s.pair, n: 0 });
  const inline = pairs.slice(0, PAIRS);
  if (chosen && !inline.some((p) => same(p, chosen))) inline.push(chosen);
  const rest = pairs.filter((p) => !inline.some((other) => same(p, other)));
  const parts = [pairButton(s, null, "All", n_open), ...inline.map((p) => pairButton(s, p, p.said, p.n))];
  if (rest.length) {
    const list = node("select");
    list.setAttribute("aria-label", "Another pair");
    list.append(new Option(`${rest.length} more pairs…`, ""), ...rest.map((p, k) => new Option(`${p.said}: ${p.n}`, String(k))));
    list.addEventListener("change", () => list.value && choosePair(s, rest[Number(list.value)]));
    parts.push(list);
  }
  const had = s.pairs.contains(s.host.getRootNode().activeElement);
  s.pairs.replaceChildren(...parts);
  if (had) s.panel.focus({ preventScroll: true });
}

const same = (a, b) => a.label === b.label && a.to === b.to;

function pairButton(s, pair, said, n) {
  const made = node("button", "pair");
  made.type = "button";
  const chosen = pair ? !!s.pair && same(pair, s.pair) : !s.pair;
  made.setAttribute("aria-pressed", String(chosen));
  made.append(node("span", "", said), node("em", "", n.toLocaleString("en-US")));
  made.addEventListener("click", () => choosePair(s, pair));
  return made;
}

function choosePair(s, pair) {
  s.pair = pair;
  s.later.clear();
  s.current = null;
  paintPairs(s);
  ask(s, "list");
  s.panel.focus({ preventScroll: true });
}

// --- words and keys ---

function say(s, words) {
  s.status.textContent = words;
}

function warn(s, words) {
  s.warning.textContent = words;
  s.warning.hidden = !words;
}

function paintSaved(s) {
  const n = onTheWay(s).size;
  const trouble = n && (s.box.problem || s.box.fails > 1);
  s.sent = s.sent || n > 0;
  s.saved.textContent = !n ? (s.sent ? "All saved" : "") : trouble ? `${n} not saved yet; kept in this browser and sent again. ${s.box.problem}` : `Saving ${n}…`;
  s.saved.classList.toggle("trouble", !!trouble);
  if (s.undo) s.undo.disabled = !s.stack.length;
}

function pressed(s, e) {
  const path = e.composedPath();
  const target = path[0];
  if (!s.host.isConnected || !s.host.offsetParent || e.defaultPrevented || e.isComposing) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable) return;
  if (document.querySelector('[data-testid="stDialog"], [role="dialog"], [role="menu"], [role="listbox"]')) return;
  const free = target === document.body || (path.includes(s.host) && target.tagName !== "BUTTON");
  if (meant(s, e, free)) e.preventDefault();
}

// Returns true when the key meant something here. A key held down means one decision.
function meant(s, e, free) {
  const key = e.key.toLowerCase();
  if (e.altKey) return false;
  if (e.ctrlKey || e.metaKey) return key === "z" && !e.shiftKey && (e.repeat || takeBack(s), true);
  if (free && key === "arrowdown") return walk(s, 1), true;
  if (free && key === "arrowup") return walk(s, -1), true;
  const row = s.rows[rowAt(s, s.current)];
  const acts = { u: () => takeBack(s) };
  if (row) Object.assign(acts, { a: () => decide(s, row.to.id), s: () => leave(s), x: () => decide(s, null) });
  if (row && free) acts[" "] = () => decide(s, row.label.id);
  const act = acts[key] && !e.shiftKey && !s.chord ? acts[key] : row && classKey(s, e, key);
  if (!act) return false;
  if (!e.repeat) act();
  return true;
}

// A class has one key, or two pressed one after the other.
function classKey(s, e, key) {
  if (e.shiftKey || key.length !== 1) return null;
  const names = [key, ...(/^Digit\d$/.test(e.code) ? [e.code.slice(5)] : [])];
  const begun = s.chord || "";
  clearTimeout(s.chordTimer);
  s.chord = "";
  for (const name of names) {
    const found = s.classes.find((c) => (c.hotkey || "").toLowerCase() === begun + name);
    if (found) return () => decide(s, found.id);
    if (!begun && s.classes.some((c) => c.hotkey && c.hotkey.length === 2 && c.hotkey[0].toLowerCase() === name)) {
      return () => {
        s.chord = name;
        say(s, `${name.toUpperCase()}, and the second key of the class`);
        s.chordTimer = setTimeout(() => (s.chord = ""), CHORD);
      };
    }
  }
  return null;
}

function walk(s, by) {
  const to = s.rows[rowAt(s, s.current) + by];
  if (to) show(s, to.id);
}
