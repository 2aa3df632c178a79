// The frame around the pictures: progress, class buttons, save state, notices, help.

const OTHERS = [
  { kind: "skip", key: "s", shown: "S", name: "Skip", word: "skipped", mark: "–" },
  { kind: "unsure", key: "x", shown: "X", name: "Unsure", word: "unsure", mark: "?" },
  { kind: "clear", key: "delete", shown: "Del", name: "Remove label", word: "no label", mark: "" },
];

function labelWord(s, label) {
  if (label.state === "label") return (s.classes.get(label.class_id) || { name: "a class of the past" }).name;
  if (label.state === "wait") return "undoing…";
  const other = OTHERS.find((o) => o.kind === label.state);
  return other ? other.word : "";
}

function buildFrame(s) {
  s.ui = {
    bar: el("div", "bar"),
    status: el("div", "status", { "aria-live": "polite", role: "status" }),
    saved: el("div", "saved", { "aria-live": "polite" }),
    undo: button("Undo", "U", "Take back your last action (u)", () => s.undo()),
    help: button("Keys", "?", "Show all keys (? or h)", () => s.ui.sheet.showModal()),
    view: el("div", "view"),
    notice: el("div", "notice", { role: "alert", hidden: "" }),
    problem: el("div", "notice problem", { role: "alert", hidden: "" }),
    panel: el("aside", "panel", { "aria-label": "Classes and progress" }),
    sheet: el("dialog", "sheet", { "aria-label": "Keys" }),
  };
  const { ui } = s;
  ui.tools = el("div", "tools");
  ui.bar.append(ui.status, ui.saved, ui.tools, ui.undo, ui.help);
  const notices = el("div", "notices", {}, ui.problem, ui.notice);
  s.host.append(el("section", "stage", {}, ui.bar, ui.view, notices), ui.panel, ui.sheet);
  ui.sheet.addEventListener("click", (e) => e.target === ui.sheet && ui.sheet.close());
  s.say = (text) => (ui.status.textContent = text);
  s.warn = (text) => {
    ui.notice.replaceChildren(el("span", "", { text }), el("button", "close", { type: "button", "aria-label": "Close", text: "×", onclick: () => (ui.notice.hidden = true) }));
    ui.notice.hidden = false;
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
  panel.replaceChildren(el("div", "head", {}, s.ui.progress, s.ui.bargraph), list, s.ui.others);
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
  const key = el("kbd", c.hotkey ? "" : "none", { text: c.hotkey ? c.hotkey.toUpperCase() : "" });
  const title = c.hotkey ? `${c.name} (key ${c.hotkey})` : c.name;
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
  for (const [id, node] of s.ui.choices) {
    const pressed = String(id === current);
    if (node.getAttribute("aria-pressed") !== pressed) node.setAttribute("aria-pressed", pressed);
  }
}

function paintSaved(s) {
  const n = s.box.items.length;
  const failing = s.box.fails > 0 && n > 0;
  const { saved, problem } = s.ui;
  clearTimeout(s.savingTimer);
  if (!n) setSaved(saved, "ok", "All saved");
  else if (failing) setSaved(saved, "bad", `${number(n)} not saved yet`);
  else s.savingTimer = setTimeout(() => setSaved(saved, "busy", `Saving ${number(n)}…`), 300);
  problem.hidden = !failing;
  if (failing) {
    const wait = `${n === 1 ? "1 label waits" : `${number(n)} labels wait`} in this browser.`;
    problem.textContent = `Not saved yet, trying again. ${wait} You can go on. ${s.box.problem}`.trim();
  }
}

function setSaved(node, kind, text) {
  if (node.textContent === text) return;
  node.dataset.kind = kind;
  node.textContent = text;
}

function buildSheet(s) {
  const single = s.data.mode === "single";
  const rows = single
    ? [["class key", "label this image, show the next"], ["← →", "previous, next image; while zoomed with ↑ ↓: move over the picture"], ["Home", "back to the first image"]]
    : [
        ["class key", "label the selected images, or the one with the frame"],
        ["click", "select one image"],
        ["Shift click", "select up to here"],
        ["Ctrl click", "add or remove one (⌘ on a Mac, long press on a tablet)"],
        ["drag", "select a box"],
        ["← → ↑ ↓", "move the frame; with Shift: select"],
        ["Space", "select or unselect the framed image"],
        ["Ctrl A", "select all on this page"],
        ["I", "invert the selection"],
        ["Esc", "select none"],
        ["Enter", "large picture (also double click)"],
      ];
  rows.push(["+ −", single ? "closer, farther" : "larger, smaller pictures; in the large picture: closer, farther"], ["Z", "pixel for pixel, and back to the whole picture"], ["R", "brightness, contrast and channels as stored"], ["PgUp PgDn", "previous, next image, also while zoomed"]);
  rows.push(["S", "skip"], ["X", "unsure"], ["Del", "remove the label"], ["U", "undo your last action, as often as you like"], ["? H", "this sheet"]);
  const body = el("dl", "");
  for (const [key, what] of rows) body.append(el("dt", "", {}, el("kbd", "", { text: key })), el("dd", "", { text: what }));
  s.ui.sheet.setAttribute("tabindex", "-1");
  const close = el("button", "tool", { type: "button", text: "Close", onclick: () => s.ui.sheet.close() });
  s.ui.sheet.replaceChildren(el("h3", "", { text: "Keys" }), body, close);
}
