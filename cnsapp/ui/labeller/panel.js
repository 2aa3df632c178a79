// The frame around the pictures: progress, class buttons, save state, notices.

const OTHERS = [
  { kind: "skip", key: "s", shown: "S", name: "Skip", word: "skipped", mark: "–" },
  { kind: "unsure", key: "x", shown: "X", name: "Unsure", word: "unsure", mark: "?" },
  { kind: "clear", key: "delete", shown: "Del", name: "Remove label", word: "no label", mark: "" },
];

// what readings come to where they are voted on, and the vote has not decided yet
const VOTED = { waiting: "waits for a reader", undecided: "readers undecided" };

function labelWord(s, label) {
  if (label.state === "label") return (s.classes.get(label.class_id) || { name: "a class of the past" }).name;
  if (label.state === "wait") return label.word || "undoing…";
  const other = OTHERS.find((o) => o.kind === label.state);
  return other ? other.word : VOTED[label.state] || "";
}

function buildFrame(s) {
  s.ui = {
    bar: el("div", "bar"),
    status: el("div", "status", { "aria-live": "polite", role: "status" }),
    saved: el("div", "saved", { "aria-live": "polite" }),
    undo: button("Undo", "U", "Take back your last action (u)", () => takeLast(s, "undo")),
    redo: button("Redo", "⇧U", "Bring back what you undid last (Shift u)", () => takeLast(s, "redo")),
    story: button("History", "⇧H", "Who said what of this image; restore an earlier label (Shift h)", () => openStory(s)),
    help: button("Keys", "?", "Show all keys (? or h)", () => s.ui.sheet.showModal()),
    view: el("div", "view"),
    notice: el("div", "notice", { role: "alert", hidden: "" }),
    problem: el("div", "notice problem", { role: "alert", hidden: "" }),
    panel: el("aside", "panel", { "aria-label": "Classes and progress" }),
    sheet: el("dialog", "sheet", { "aria-label": "Keys" }),
  };
  const { ui } = s;
  ui.tools = el("div", "tools");
  ui.bar.append(ui.status, ui.saved, ui.tools, ui.undo, ui.redo, ui.story, ui.help);
  const notices = el("div", "notices", {}, ui.problem, ui.notice);
  ui.stage = el("section", "stage", {}, ui.bar, ui.view, notices);
  s.host.append(ui.stage, ui.panel, ui.sheet);
  ui.sheet.addEventListener("click", (e) => e.target === ui.sheet && ui.sheet.close());
  s.say = (text) => {
    ui.status.textContent = ui.status.title = text;
    if (s.big && s.big.open) s.bigSaid.textContent = s.bigSaid.title = text;
  };
  s.warn = (text) => {
    ui.notice.replaceChildren(el("span", "", { text }), el("button", "close", { type: "button", "aria-label": "Close", text: "×", onclick: () => (ui.notice.hidden = true) }));
    ui.notice.hidden = false;
    if (s.big && s.big.open) s.bigSaid.textContent = s.bigSaid.title = text; // it lies over the notice
  };
}

function buildPanel(s) {
  const { panel } = s.ui;
  const sign = JSON.stringify(s.data.classes);
  if (s.panelSign === sign) return;
  s.panelSign = sign;
  s.ui.fill = el("div", "fill");
  s.ui.progress = el("div", "count");
  s.ui.bargraph = el("div", "track", { role: "progressbar", "aria-label": "Labelled images", "aria-valuemin": "0" }, s.ui.fill);
  s.ui.others = el("div", "others");
  s.ui.counts = new Map();
  s.ui.choices = new Map();
  const list = el("div", "classes");
  for (const [parent, classes] of groupsOf(s.data.classes)) {
    if (parent) list.append(el("h4", "", { text: parent }));
    for (const c of classes) list.append(choice(s, c));
  }
  for (const other of OTHERS) s.ui.others.append(choice(s, { ...other, id: other.kind, hotkey: other.shown }));
  for (const extra of EXTRAS) s.ui.others.append(extraChoice(s, extra));
  panel.replaceChildren(el("div", "head", {}, s.ui.progress, s.ui.bargraph), list, s.ui.others);
}

// What has a key and is no label.
const EXTRAS = [
  { key: "/", name: "Find a class", open: openFinder },
  { key: "N", name: "Note", open: openNote },
  { key: "M", name: "Tags", open: openTags },
];

function extraChoice(s, { key, name, open }) {
  const node = button("", "", `${name} (key ${key})`, () => open(s));
  node.className = "choice extra";
  node.replaceChildren(el("kbd", "", { text: key }), el("span", "name", { text: name }));
  return node;
}

function groupsOf(classes) {
  const groups = new Map();
  for (const c of classes) groups.set(c.parent || "", [...(groups.get(c.parent || "") || []), c]);
  return groups;
}

function choice(s, c) {
  const count = el("span", "n", { "aria-hidden": "true" });
  const swatch = c.color ? el("span", "swatch") : el("span", "mark", { text: c.mark });
  if (c.color) swatch.style.background = c.color;
  const key = el("kbd", c.hotkey ? "" : "none", { text: c.kind ? c.hotkey : keyText(c.hotkey) || "/" });
  const title = !c.hotkey ? `${c.name} (no key: press / and a part of its name)` : `${c.name} (${c.hotkey.length === 2 && !c.kind ? "keys" : "key"} ${c.kind ? c.hotkey : keyText(c.hotkey)})`;
  const node = button("", "", title, () => (c.kind ? s.label(c.kind, null) : s.label("label", c.id)));
  node.className = "choice";
  node.replaceChildren(key, swatch, el("span", "name", { text: c.name }), count);
  s.ui.counts.set(c.id, count);
  s.ui.choices.set(c.id, node);
  return node;
}

// The counts change with an answer of the server, not with a key.
function paintPanel(s) {
  if (s.painted && s.painted.counts === s.counts && s.painted.nodes === s.ui.counts) return;
  s.painted = { counts: s.counts, nodes: s.ui.counts };
  const counts = s.counts || { images: 0, labelled: 0, per_class: {} };
  const share = counts.images ? (100 * counts.labelled) / counts.images : 0;
  s.ui.progress.replaceChildren(el("b", "", { text: number(counts.labelled) }), ` of ${number(counts.images)} labelled`);
  if (counts.waiting) s.ui.progress.append(el("div", "quiet", { text: `${images(counts.waiting)} ${counts.waiting === 1 ? "waits" : "wait"} for another reader` }));
  if (counts.undecided) s.ui.progress.append(el("div", "quiet", { text: `${images(counts.undecided)}: readers undecided` }));
  s.ui.fill.style.width = `${share}%`;
  s.ui.bargraph.setAttribute("aria-valuenow", counts.labelled);
  s.ui.bargraph.setAttribute("aria-valuemax", counts.images);
  for (const [id, node] of s.ui.counts) {
    const n = id === "skip" ? counts.skipped : id === "unsure" ? counts.unsure : id === "clear" ? null : counts.per_class[id] || 0;
    node.textContent = n === null ? "" : number(n);
  }
}

// Mark the class of the image (or of the whole selection) that a key would label.
function paintChoice(s, ids) {
  const labels = ids.map((id) => shownLabel(s, id));
  const first = labels[0] || { state: "none" };
  const same = labels.every((l) => l.state === first.state && l.class_id === first.class_id);
  const current = !same ? null : first.state === "label" ? first.class_id : first.state;
  if (isSingle(s)) paintBeside(s, ids[0]);
  for (const [id, node] of s.ui.choices) {
    const pressed = String(id === current);
    if (node.getAttribute("aria-pressed") !== pressed) node.setAttribute("aria-pressed", pressed);
  }
}

function paintSaved(s) {
  const labels = s.box.items.length;
  const n = labels + s.notebox.items.length;
  const failing = n > 0 && (s.box.fails > 0 || s.notebox.fails > 0);
  const { saved, problem } = s.ui;
  clearTimeout(s.savingTimer);
  if (!n) setSaved(saved, "ok", "All saved");
  else if (failing) setSaved(saved, "bad", `${number(n)} not saved yet`);
  else s.savingTimer = setTimeout(() => setSaved(saved, "busy", `Saving ${number(n)}…`), 300);
  problem.hidden = !failing;
  if (failing) {
    const what = n > labels ? (labels ? "labels and notes" : n === 1 ? "note" : "notes") : n === 1 ? "label" : "labels";
    const wait = `${number(n)} ${what} ${n === 1 ? "waits" : "wait"} in this browser.`;
    problem.textContent = `Not saved yet, trying again. ${wait} You can go on. ${s.box.problem || s.notebox.problem}`.trim();
  }
}

function setSaved(node, kind, text) {
  if (node.textContent === text) return;
  node.dataset.kind = kind;
  node.textContent = text;
}
