// Find a class by any part of its name or of its parent's, however many there are.

const MOST_SHOWN = 60;

const folded = (text) => text.normalize("NFKC").toLowerCase().replaceAll("_", " ");

// The classes in which every word of the text is found: those that begin with it first.
function findClasses(s, text) {
  const words = folded(text).split(/\s+/).filter(Boolean);
  const recent = (c) => (s.recent.includes(c.id) ? s.recent.indexOf(c.id) : s.recent.length);
  const rank = (c) => {
    if (!words.length) return 0;
    const name = folded(c.name);
    return name === words.join(" ") ? 0 : name.startsWith(words[0]) ? 1 : name.includes(` ${words[0]}`) ? 2 : name.includes(words[0]) ? 3 : 4;
  };
  const found = s.data.classes.filter((c) => words.every((word) => folded(`${c.name} ${c.parent || ""}`).includes(word)));
  return found.map((c, i) => [rank(c), recent(c), i, c]).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map(([, , , c]) => c);
}

function openFinder(s) {
  const ids = chosenIds(s);
  if (!ids.length) return s.say("Select an image first.");
  const count = el("span", "quiet", { role: "status" });
  const box = comboBox("Find a class", "Part of a name or of its group", (text) => {
    const found = findClasses(s, text);
    const n = found.length;
    count.textContent = n ? `${n === 1 ? "1 class" : `${number(n)} classes`}` : "No class is called so.";
    const more = n > MOST_SHOWN ? `${number(n - MOST_SHOWN)} more: type another letter.` : "";
    return { options: found.slice(0, MOST_SHOWN).map((c) => classOption(s, c, !text)), more };
  });
  const what = ids.length === 1 ? baseName(nameFor(s, ids[0])) : images(ids.length);
  openPopup(s, "finder", "Find a class", el("div", "head", {}, el("b", "", { text: `Label ${what}` }), count), box.root,
    el("p", "hint", { text: "↑ ↓ choose · Enter labels · Esc closes" }));
  box.fill();
  box.input.focus();
}

function classOption(s, c, showRecent) {
  const swatch = el("span", "swatch");
  swatch.style.background = c.color;
  const node = el("div", "option", {}, swatch, el("span", "name", { text: c.name }));
  if (c.parent) node.append(el("span", "quiet", { text: c.parent }));
  if (showRecent && s.recent.includes(c.id)) node.append(el("span", "quiet recent", { text: "used lately" }));
  if (c.hotkey) node.append(el("kbd", "", { text: keyText(c.hotkey) }));
  const pick = () => {
    closePopup(s);
    s.label("label", c.id);
  };
  return { node, pick };
}
