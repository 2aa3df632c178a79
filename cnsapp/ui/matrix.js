// A confusion matrix of buttons: a click or Enter chooses a cell, a row or a column; arrows walk.
const MOUNTED = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: document.createElement("div"), drawn: "", share: false, at: [1, 1] };
    s.host.className = "matrix";
    s.host.addEventListener("keydown", (e) => walk(s, e));
    parentElement.append(s.host);
    s.watch = new ResizeObserver(() => fit(s));
    s.watch.observe(s.host); // the parent is a shadow root
    MOUNTED.set(parentElement, s);
  }
  s.data = data;
  s.choose = (row, column) => {
    setTriggerValue("cell", { row, column });
    paintChoice(s, [row, column]);
  };
  const drawn = JSON.stringify([data.names, data.counts, data.titles]);
  if (drawn !== s.drawn) draw(s), (s.drawn = drawn);
  paintChoice(s, data.selected);
  return () => {
    s.watch.disconnect();
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function draw(s) {
  const { names, counts } = s.data;
  const held = s.host.contains(s.host.getRootNode().activeElement);
  const table = node("table");
  table.classList.toggle("narrow", names.length > 6);
  const [label, predicted] = s.data.titles || ["labels", "predictions"];
  table.setAttribute("aria-label", `Confusion matrix: rows are ${label}, columns are ${predicted}`);
  const head = node("tr");
  head.append(corner(s));
  names.forEach((name, j) => head.append(header(s, name, 0, j + 1, () => s.choose(null, j))));
  head.append(node("th", "sum", "n"));
  const thead = node("thead");
  const over = node("tr", "over");
  const word = node("th", "", s.data.titles ? predicted : "Predicted");
  word.colSpan = names.length;
  over.append(node("th"), word, node("th"));
  thead.append(over, head);
  const body = node("tbody");
  names.forEach((name, i) => body.append(rowOf(s, name, counts[i], i)));
  table.append(thead, body);
  s.host.replaceChildren(table);
  rove(s, s.at, held);
  fit(s);
}

// Cells take what the column leaves, so that the whole matrix stays in sight.
function fit(s) {
  const name = s.host.querySelector("tbody th");
  if (!name || !s.host.clientWidth) return;
  const n = s.data.names.length;
  const room = s.host.clientWidth - name.getBoundingClientRect().width - 52;
  s.host.style.setProperty("--cell", `${Math.max(24, Math.min(n > 6 ? 40 : 64, room / n - 2))}px`);
}

function rowOf(s, name, counts, i) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const row = node("tr");
  row.append(header(s, name, i + 1, 0, () => s.choose(i, null)));
  counts.forEach((n, j) => row.append(cellOf(s, n, total, i, j)));
  row.append(node("td", "sum", total.toLocaleString("en")));
  return row;
}

function cellOf(s, n, total, i, j) {
  const cell = node("td");
  const share = total ? n / total : 0;
  const text = s.share ? (n ? percent(share) : "") : n ? n.toLocaleString("en") : "";
  const made = button(s, text || "·", i + 1, j + 1, () => s.choose(i, j));
  made.classList.add(i === j ? "right" : "wrong");
  made.classList.toggle("zero", !n);
  // a wrong cell of 10 % must be seen: the colour grows with the root of the share
  const depth = n ? Math.round(12 + 80 * (i === j ? share : Math.sqrt(share))) : 0;
  made.style.setProperty("--depth", `${Math.min(depth, 92)}%`);
  made.classList.toggle("deep", depth > 55);
  made.title = `${both(s, s.data.names[i], s.data.names[j])}: ${n.toLocaleString("en")} of ${total.toLocaleString("en")} (${percent(share)})`;
  made.setAttribute("aria-label", made.title);
  cell.append(made);
  return cell;
}

// What a cell is: a label and a prediction, or what two people said.
function both(s, label, predicted) {
  if (!s.data.titles) return `${label}, predicted as ${predicted}`;
  return `${s.data.titles[0]}: ${label}, ${s.data.titles[1]}: ${predicted}`;
}

function header(s, name, row, column, chosen) {
  const cell = node("th", row ? "row" : "column");
  cell.scope = row ? "row" : "col";
  const made = button(s, name, row, column, chosen);
  const [label, predicted] = s.data.titles || ["", ""];
  if (s.data.titles) made.title = `All images that ${row ? label : predicted} called ${name}`;
  else made.title = row ? `All images labelled ${name}` : `All images predicted as ${name}`;
  cell.append(made);
  return cell;
}

function corner(s) {
  const cell = node("th", "corner");
  const switcher = node("div", "switch");
  for (const [share, word, hint] of [[false, "n", "Numbers of images"], [true, "%", "Shares of each row"]]) {
    const made = node("button", s.share === share ? "on" : "", word);
    made.type = "button";
    made.title = hint;
    made.setAttribute("aria-pressed", String(s.share === share));
    made.addEventListener("click", () => {
      s.share = share;
      draw(s);
      paintChoice(s, s.chosen);
    });
    switcher.append(made);
  }
  cell.append(switcher, node("span", "axis", s.data.titles ? s.data.titles[0] : "Label"));
  return cell;
}

function button(s, text, row, column, chosen) {
  const made = node("button", "cell", text);
  made.type = "button";
  made.dataset.at = `${row},${column}`;
  made.tabIndex = -1;
  made.addEventListener("click", () => {
    s.at = [row, column];
    rove(s, s.at, false);
    chosen();
    reveal(s);
  });
  return made;
}

// The gallery of the cell is below the matrix: bring it into sight.
function reveal(s) {
  const root = s.host.getRootNode();
  const place = root.host || s.host;
  setTimeout(() => {
    const gallery = place.ownerDocument.querySelector(".st-key-review_gallery, .st-key-people_gallery");
    if (!gallery) return;
    const box = gallery.getBoundingClientRect();
    if (box.top > window.innerHeight * 0.6) gallery.scrollIntoView({ behavior: "smooth", block: "start" });
  }, 350);
}

function paintChoice(s, chosen) {
  s.chosen = chosen;
  for (const made of s.host.querySelectorAll("button.cell")) {
    const [row, column] = made.dataset.at.split(",").map(Number);
    const same = chosen && (chosen[0] ?? -1) === row - 1 && (chosen[1] ?? -1) === column - 1;
    made.classList.toggle("chosen", !!same);
    made.setAttribute("aria-pressed", String(!!same));
  }
}

function walk(s, e) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
  if (!step || e.ctrlKey || e.metaKey || e.altKey) return;
  const next = [s.at[0] + step[0], s.at[1] + step[1]];
  if (!find(s, next)) return;
  e.preventDefault();
  rove(s, next, true);
}

const find = (s, at) => s.host.querySelector(`button[data-at="${at[0]},${at[1]}"]`);

function rove(s, at, focus) {
  const old = find(s, s.at);
  if (old) old.tabIndex = -1;
  const made = find(s, at) || find(s, [1, 1]);
  if (!made) return;
  s.at = made.dataset.at.split(",").map(Number);
  made.tabIndex = 0;
  if (focus) made.focus();
}

function percent(share) {
  return `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)}%`;
}
