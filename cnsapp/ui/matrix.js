// A confusion matrix of buttons: a click or Enter chooses a cell, a row or a column; arrows walk.
const MOUNTED = new WeakMap();
const TIGHT = 34; // px: cells narrower than this have smaller figures

export default function ({ data, parentElement, setTriggerValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: document.createElement("div"), drawn: "", share: "counts", at: [1, 1], before: null };
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
  const drawn = JSON.stringify([data.names, data.counts, data.titles, data.show]);
  if (drawn !== s.drawn) draw(s), (s.drawn = drawn);
  paintChoice(s, data.selected);
  return () => {
    s.watch.disconnect();
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

// Counts, or shares of rows or columns: as the page says, or the switch in the corner.
const shown = (s) => s.data.show || s.share;

function draw(s) {
  const { names, counts } = s.data;
  s.rows = counts.map((row) => row.reduce((sum, n) => sum + n, 0));
  s.columns = names.map((_, j) => counts.reduce((sum, row) => sum + row[j], 0));
  const held = s.host.contains(s.host.getRootNode().activeElement);
  const table = node("table");
  table.classList.toggle("many", names.length > 16);
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
  table.append(thead, body, foot(s));
  s.host.replaceChildren(table);
  rove(s, s.at, held);
  fit(s);
  showMoved(s);
}

// How many images are predicted as each.
function foot(s) {
  const made = node("tfoot");
  const row = node("tr");
  const name = node("th", "row sum", "n");
  name.scope = "row";
  row.append(name, ...s.columns.map((n) => node("td", "sum below", brief(n))), node("td", "sum", total(s).toLocaleString("en")));
  made.append(row);
  return made;
}

const total = (s) => s.rows.reduce((sum, n) => sum + n, 0);

// Cells whose number has just moved under the hand that labels light up for a moment.
function showMoved(s) {
  const { names, counts } = s.data;
  const sign = names.join("\n");
  const old = s.before && s.before.sign === sign ? s.before.counts : null;
  s.before = { sign, counts };
  if (!old) return;
  counts.forEach((row, i) => row.forEach((n, j) => n !== old[i][j] && find(s, [i + 1, j + 1]).classList.add("moved")));
}

// Cells take what the column leaves, so that the whole matrix stays in sight; names stand upright
// where they are wider than their column.
function fit(s) {
  const name = s.host.querySelector("tbody th");
  if (!name || !s.host.clientWidth) return;
  s.host.classList.remove("tight"); // smaller names would leave more room than there is without
  const n = s.data.names.length;
  const sum = s.host.querySelector("tbody .sum");
  const room = s.host.clientWidth - name.getBoundingClientRect().width - sum.getBoundingClientRect().width;
  const longest = Math.max(...s.data.names.map((one) => one.length)) * 7.5 + 6;
  const most = n > 6 ? 44 : Math.max(64, Math.min(longest, 120));
  const side = Math.max(22, Math.min(most, (room - 12) / n - 2));
  s.host.style.setProperty("--cell", `${side}px`);
  s.host.classList.toggle("tight", side < TIGHT);
  s.host.firstElementChild.classList.toggle("narrow", longest > side);
}

// A number that fits into a narrow cell.
function brief(n) {
  return n < 10000 ? n.toLocaleString("en") : `${Math.round(n / 1000).toLocaleString("en")}k`;
}

function rowOf(s, name, counts, i) {
  const row = node("tr");
  row.append(header(s, name, i + 1, 0, () => s.choose(i, null)));
  counts.forEach((n, j) => row.append(cellOf(s, n, i, j)));
  row.append(node("td", "sum", s.rows[i].toLocaleString("en")));
  return row;
}

function cellOf(s, n, i, j) {
  const cell = node("td");
  const whole = shown(s) === "column" ? s.columns[j] : s.rows[i];
  const share = whole ? n / whole : 0;
  const text = !n ? "·" : shown(s) === "counts" ? brief(n) : percent(share).replace("%", "");
  const made = button(s, text, i + 1, j + 1, () => s.choose(i, j));
  made.classList.add(i === j ? "right" : "wrong");
  made.classList.toggle("zero", !n);
  // a wrong cell of 10 % must be seen: the colour grows with the root of the share
  const depth = n ? Math.round(12 + 80 * (i === j ? share : Math.sqrt(share))) : 0;
  made.style.setProperty("--depth", `${Math.min(depth, 92)}%`);
  made.classList.toggle("deep", depth > 55);
  made.title = `${both(s, s.data.names[i], s.data.names[j])}: ${n.toLocaleString("en")} of ${whole.toLocaleString("en")}${wholeOf(s)} (${percent(share)})`;
  made.setAttribute("aria-label", made.title);
  cell.append(made);
  return cell;
}

function wholeOf(s) {
  if (s.data.titles) return "";
  return shown(s) === "column" ? " predicted so" : " labelled so";
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
  if (!s.data.show) cell.append(switcher(s));
  cell.append(node("span", "axis", s.data.titles ? s.data.titles[0] : "Label"));
  return cell;
}

function switcher(s) {
  const made = node("div", "switch");
  for (const [share, word, hint] of [["counts", "n", "Numbers of images"], ["row", "%", "Shares of each row"]]) {
    const choice = node("button", s.share === share ? "on" : "", word);
    choice.type = "button";
    choice.title = hint;
    choice.setAttribute("aria-pressed", String(s.share === share));
    choice.addEventListener("click", () => {
      s.share = share;
      draw(s);
      paintChoice(s, s.chosen);
    });
    made.append(choice);
  }
  return made;
}

function button(s, text, row, column, chosen) {
  const made = node("button", "cell", text);
  made.type = "button";
  made.dataset.at = `${row},${column}`;
  made.tabIndex = -1;
  made.addEventListener("click", (e) => {
    rove(s, [row, column], false);
    const byKey = !e.detail;
    if (byKey && made.classList.contains("chosen")) return enter(s);
    chosen();
    reveal(s);
  });
  return made;
}

const galleryOf = (s) => (s.host.getRootNode().host || s.host).ownerDocument.querySelector(".st-key-review_gallery, .st-key-people_gallery");

// Enter on the cell that is chosen already: the keyboard goes to its images.
function enter(s) {
  const gallery = galleryOf(s);
  const inside = gallery ? [...gallery.querySelectorAll("*")].find((one) => one.shadowRoot && one.shadowRoot.querySelector(".cells")) : null;
  if (inside) inside.shadowRoot.querySelector(".cells").focus();
}

// The gallery of the cell is below the matrix: bring it into sight.
function reveal(s) {
  setTimeout(() => {
    const gallery = galleryOf(s);
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
