// The labelled images that look most like the one in the large picture.

function paintNear(s, facts) {
  const { ui } = s.why;
  ui.near.hidden = !facts.neighbours.length;
  ui.near.replaceChildren(...facts.neighbours.map((one, i) => {
    const said = `${one.class.name}, similarity ${one.similarity.toFixed(2)}${nearWords(one).map((word) => `, ${word}`).join("")}`;
    const img = el("img", "", { alt: "", src: one.thumb, decoding: "async", draggable: "false" });
    const node = el("button", "one2", { type: "button", title: `${one.name}: ${said}`, "aria-label": said, "data-id": one.id, onclick: () => openNear(s, i) }, img,
      el("span", "named", {}, ...namedClass(one.class)), el("span", "quiet", { text: one.similarity.toFixed(2) }));
    node.addEventListener("pointerdown", (e) => e.preventDefault());
    return node;
  }));
  ui.nearNote.textContent = ui.nearNote.title = facts.neighbours_note;
}

function nearWords(one) {
  const words = [];
  if (one.same_file) words.push("the same file");
  if (one.same_group) words.push("same group");
  if (one.learnt) words.push("the model learnt from it");
  return words;
}

// One of them large, over the picture: no key labels while it is open.
function openNear(s, at) {
  const facts = s.why.facts.get(s.why.shown);
  const all = (facts && facts.neighbours) || [];
  if (!all.length) return s.say(facts && facts.neighbours_note ? facts.neighbours_note : "No labelled neighbours are known here.");
  const img = el("img", "", { alt: "" });
  const head = el("div", "head");
  const words = el("p", "hint");
  const show = (to) => {
    at = (to + all.length) % all.length;
    const one = all[at];
    img.src = one.view;
    img.alt = one.name;
    head.replaceChildren(el("b", "", { text: `${at + 1} of ${all.length}: ${baseName(one.name)}`, title: one.name }), el("span", "whose", {}, ...namedClass(one.class)));
    words.textContent = [`Similarity ${one.similarity.toFixed(2)}`, ...nearWords(one)].join(" · ");
  };
  const root = openPopup(s, "nearby", "A labelled image that looks alike", head, img, words,
    el("div", "foot2", {}, el("p", "hint", { text: "← →: the others · Esc: back to your image" }),
      button("Explain this one", "", "What the model makes of it, on a page of its own", () => (s.big.close(), s.open(all[at].id)))));
  root.setAttribute("tabindex", "-1");
  root.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ";": 1 }[e.key];
    if (step) e.preventDefault(), show(at + step);
  });
  show(at);
  root.focus({ preventScroll: true });
}
