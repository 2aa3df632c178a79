// One cell of the grid: its picture, its label or guess, and what stands beside.

function makeCell(s, row) {
  const cell = {
    picture: el("div", "picture loading"),
    chips: el("div", "chipline"),
    swatch: el("span", "swatch"),
    mark: el("span", "mark"),
    word: el("span", "word"),
    share: el("span", "share"),
    from: el("span", "from"),
    tick: el("span", "tick"),
    badge: el("span", "badge", { hidden: "" }),
  };
  const img = el("img", "", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
  img.addEventListener("load", () => cell.picture.classList.remove("loading"));
  img.addEventListener("error", () => {
    cell.picture.className = "picture broken";
    cell.picture.replaceChildren(el("span", "", { text: `${baseName(row.name)} cannot be shown` }), cell.badge, cell.chips);
  });
  img.src = thumbUrl(row);
  cell.picture.append(img, cell.badge, cell.chips, el("span", "check", { "aria-hidden": "true", text: "✓" }));
  cell.root = el("div", "cell", { role: "option", id: `cell-${row.id}`, title: row.name, "data-id": row.id }, cell.picture, el("div", "tag", {}, cell.swatch, cell.mark, cell.word, cell.share, cell.from, cell.tick));
  paintBadge(cell, row);
  return cell;
}

function paintBadge(cell, row) {
  cell.badge.hidden = !row.badge;
  if (!row.badge) return;
  cell.badge.textContent = row.badge.text;
  cell.badge.dataset.tone = row.badge.tone || "plain";
}

function paintCell(s, id) {
  const cell = s.cells.get(id);
  if (!cell) return;
  const label = shownLabel(s, id);
  const saved = !s.ahead.has(id);
  const word = labelWord(s, label);
  const row = s.images[s.at.get(id)];
  const guess = word ? null : guessOf(s, id);
  const { dataset } = cell.root;
  dataset.state = label.state;
  dataset.saved = String(saved);
  if (guess) dataset.guess = "";
  else delete dataset.guess;
  cell.root.style.setProperty("--c", guess ? guess.c.color : "");
  cell.swatch.style.background = label.state === "label" ? (s.classes.get(label.class_id) || {}).color || "" : "";
  cell.mark.textContent = guess ? "guess" : "";
  cell.word.textContent = word || (guess ? guess.c.name : baseName(row.name));
  cell.share.textContent = guess ? guess.share : "";
  [cell.from.textContent, cell.from.title] = sourceMark(label);
  cell.tick.textContent = word && label.state !== "wait" ? (saved ? "✓" : "…") : "";
  cell.tick.title = saved ? "Saved" : "Not saved yet";
  const chips = chipsOf(s, id);
  paintCellChips(cell, chips);
  const said = [baseName(row.name), word || "no label", guess ? guess.said : "", cell.from.title, ...chips.map(([, , words]) => words), row.badge ? row.badge.text : "", saved ? "" : "not saved yet"];
  cell.root.setAttribute("aria-label", said.filter(Boolean).join(", "));
}

function paintCellChips(cell, chips) {
  const sign = JSON.stringify(chips);
  if (cell.chipSign === sign) return;
  cell.chipSign = sign;
  cell.chips.replaceChildren(...chipNodes(chips));
}
