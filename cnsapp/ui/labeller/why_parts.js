// The parts of the panel beside the large picture, painted from the server's facts. Each keeps its
// room while facts are on their way, so that nothing jumps; what belonged to the image before is
// not to be seen beside the next one.

const METADATA_SHOWN = 8;

function paintWhy(s) {
  const w = s.why;
  const { ui } = w;
  const id = w.shown;
  const facts = w.facts.get(id);
  const told = !!facts && !facts.error;
  w.root.classList.toggle("waiting", !told);
  w.root.classList.toggle("failed", !!facts && !told);
  ui.body.setAttribute("aria-busy", String(!facts));
  ui.problem.hidden = !facts || !facts.error;
  if (facts && facts.error) {
    const again = button("Try again", "", "Ask once more", () => askAgain(s));
    ui.problem.replaceChildren(el("p", "", { text: facts.error }), again);
  }
  const out = isOut(s, id);
  setText(ui.exclude.firstChild, out ? "Restore" : "Exclude");
  ui.exclude.setAttribute("aria-pressed", String(out));
  paintSaid(s, id, told ? facts : null);
  if (!told || w.painted === facts) return;
  w.painted = facts;
  paintBars(ui, facts);
  paintNear(s, facts);
  paintStory(s, id, facts);
  ui.metaPart.hidden = !facts.metadata.length;
  ui.meta.replaceChildren(...facts.metadata.slice(0, METADATA_SHOWN).flatMap(([key, value]) => [el("dt", "", { text: key }), el("dd", "", { text: value, title: value })]));
}

function namedClass(c) {
  const swatch = el("span", "swatch");
  swatch.style.background = c.color || "";
  return [swatch, el("b", "", { text: c.name, title: c.name })];
}

// What it is called and what the model says, below each other, with a word on whether they agree.
function paintSaid(s, id, facts) {
  const { said } = s.why.ui;
  const label = shownLabel(s, id);
  const c = label.state === "label" ? s.classes.get(label.class_id) : null;
  const predicted = facts && facts.predicted.name ? facts.predicted : null;
  const saved = !s.ahead.has(id);
  const author = facts && saved && facts.label.who ? `${facts.label.who}, ${new Date(facts.label.at).toLocaleDateString([], { dateStyle: "medium" })}` : "";
  const p = predicted ? facts.probabilities.find((one) => one.id === predicted.id) : null;
  const agree = c && predicted ? c.id === predicted.id : null;
  const rows = [
    el("span", "quiet", { text: "Label" }),
    el("span", "whose", {}, ...(c ? namedClass(c) : [el("i", "", { text: labelWord(s, label) || "no label" })]), el("span", "quiet", { text: author, title: author })),
    el("span", "quiet", { text: "Model" }),
    el("span", "whose", {}, ...(predicted ? namedClass(predicted) : [el("i", "quiet", { text: facts ? "no answer" : "" })]), el("span", "quiet", { text: p ? p.p.toFixed(3) : "" })),
    el("span", "quiet", { text: "" }),
    el("span", `agrees ${agree === null ? "" : agree ? "yes" : "no"}`, { text: agree === null ? "" : agree ? "✓ They agree" : "≠ They differ" }),
  ];
  const then = facts && facts.label_then.name;
  if (then) rows[5].append(el("span", "quiet", { text: ` · called ${then} when the model was trained` }));
  said.replaceChildren(...rows);
}

function paintBars(ui, facts) {
  ui.bars.replaceChildren(...facts.probabilities.map((c) => {
    const fill = el("i", "");
    Object.assign(fill.style, { width: `${100 * c.p}%`, background: c.color });
    const chosen = c.id === facts.predicted.id ? "chosen" : "";
    return el("div", chosen, { role: "listitem", "data-class": c.id }, el("span", "name", { text: c.name, title: c.name }), el("span", "bar2", {}, fill), el("span", "num", { text: c.p.toFixed(3) }));
  }));
  const more = [facts.loss === null ? "" : `Loss\u00a0${facts.loss.toFixed(2)}.`, facts.group ? `Group\u00a0${facts.group}.` : ""];
  ui.how.textContent = [facts.probabilities.length ? `${sentence(facts.how)}.` : facts.how, ...more].filter(Boolean).join(" ");
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function paintStory(s, id, facts) {
  const { ui } = s.why;
  ui.story.replaceChildren(...facts.history.map((entry) => {
    const what = el("span", "what");
    if (entry.after) what.append(ACTS[entry.kind] ? `${ACTS[entry.kind]}: ` : "", el("b", "", { text: sayingWord(entry.after) }));
    else what.append(`${ACTS[entry.kind] || entry.kind} `, el("span", "", { text: entry.text }));
    const when = new Date(entry.at).toLocaleDateString([], { dateStyle: "medium" });
    const node = el("li", entry.undone ? "undone" : "", {}, what, el("span", "quiet", { text: `${entry.who}, ${when}` }));
    node.title = node.textContent;
    return node;
  }));
  if (!facts.history.length) ui.story.append(el("li", "quiet", { text: "Nobody has said anything about this image yet." }));
  setText(ui.all.firstChild, facts.n_history > facts.history.length ? `All ${number(facts.n_history)}` : "All");
}
