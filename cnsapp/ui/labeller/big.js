// The large picture over the grid.

function openBig(s, i) {
  if (!s.images[i]) return;
  s.focus = s.anchor = i;
  if (!s.big) buildBig(s);
  if (!s.big.open) s.big.showModal();
  showBig(s);
  paintSelection(s);
}

function buildBig(s) {
  s.big = el("dialog", "big", { "aria-label": "Large picture" });
  s.bigPicture = el("div", "frame", { tabindex: "-1", autofocus: "" });
  s.bigName = el("span", "name");
  s.bigTag = el("span", "now");
  s.bigSaid = el("span", "said", { role: "status" });
  s.bigChoices = el("div", "row");
  const step = (by) => moveFocus(s, s.focus + by, false);
  s.bigViewer = newViewer(s.bigPicture, () => s.data.um_per_px);
  const head = el("div", "head", {}, s.bigName, s.bigTag, s.bigSaid, el("span", "gap"),
    button("‹", "", "Previous (←)", () => step(-1)), button("›", "", "Next (→)", () => step(1)));
  if (s.data.mode === "review") head.append(button("Explain", "", "Why the model says so", () => (s.big.close(), s.open(s.images[s.focus].id))));
  if (s.data.review) head.append(button("Keys", "?", "Show all keys (? or h)", () => s.ui.sheet.showModal()));
  head.append(button("Close", "Esc", "Back to the grid", () => s.big.close()));
  s.big.append(head, s.data.review ? el("div", "bigbody", {}, s.bigViewer.root, buildWhy(s)) : s.bigViewer.root, s.bigChoices);
  s.big.addEventListener("close", () => (leaveMaps(s), closePopup(s, false), paintSelection(s), takeKeyboard(s)));
  s.host.append(s.big);
}

function showBig(s) {
  const row = s.images[s.focus];
  const label = shownLabel(s, row.id);
  s.bigName.textContent = row.name;
  const guess = guessOf(s, row.id);
  s.bigTag.textContent = [labelWord(s, label) || "no label", guess ? `guess ${guess.text} (A accepts)` : "", ...chipsOf(s, row.id).map(([, text]) => text), row.badge ? row.badge.text : ""].filter(Boolean).join(" · ");
  if (s.bigPicture.dataset.id !== String(row.id)) showPicture(s, s.bigPicture, row);
  for (let i = s.focus - 1; i <= s.focus + 2; i++) if (s.images[i]) fetchPicture(s, s.images[i]);
  s.bigChoices.replaceChildren(...s.data.classes.map((c) => {
    const node = button(c.name, keyText(c.hotkey), `Label as ${c.name}`, () => s.label("label", c.id));
    const swatch = el("span", "swatch");
    swatch.style.background = c.color;
    node.prepend(swatch);
    node.setAttribute("aria-pressed", String(label.state === "label" && label.class_id === c.id));
    return node;
  }));
  showWhy(s, row);
}
