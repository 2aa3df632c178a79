// Thumbnails that open at a click or with Enter; arrows walk from one to the next.
const MOUNTED = new WeakMap();

export default function ({ data, parentElement, setTriggerValue, setStateValue }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: document.createElement("div"), drawn: "" };
    s.host.className = "gallery";
    s.host.setAttribute("role", "list");
    s.host.addEventListener("keydown", (e) => walk(s, e));
    parentElement.append(s.host);
    MOUNTED.set(parentElement, s);
  }
  s.open = (id) => setTriggerValue("open", id);
  s.check = () => setStateValue("checked", [...s.checked]);
  s.host.classList.toggle("row", data.row);
  s.host.style.setProperty("--side", `${data.side}px`);
  const drawn = JSON.stringify([data.tiles, data.checkable]);
  if (drawn !== s.drawn) {
    const had = s.checked?.size;
    (s.checked = new Set()), draw(s, data.tiles, data.checkable), (s.drawn = drawn);
    if (had) s.check(); // other pictures: what was ticked is not on the screen any more
  }
  for (const cell of s.host.children) {
    const chosen = Number(cell.firstChild.dataset.id) === data.selected;
    cell.firstChild.classList.toggle("chosen", chosen);
    if (chosen && data.row) s.host.scrollLeft = cell.offsetLeft - s.host.clientWidth / 2;

  }
  return () => {
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function draw(s, tiles, checkable) {
  s.host.replaceChildren(...tiles.map((tile, i) => cellOf(s, tile, i)));
  if (checkable) [...s.host.children].forEach((cell, i) => cell.append(boxOf(s, tiles[i])));
}

function boxOf(s, tile) {
  const box = node("input", "check");
  box.type = "checkbox";
  box.setAttribute("aria-label", `Select ${tile.name}`);
  box.addEventListener("change", () => {
    if (box.checked) s.checked.add(tile.id);
    else s.checked.delete(tile.id);
    s.check();
  });
  return box;
}

function cellOf(s, tile, i) {
  const cell = node("div", "cell");
  cell.setAttribute("role", "listitem");
  const button = node("button", "tile");
  button.type = "button";
  button.dataset.id = tile.id;
  button.title = tile.name;
  button.tabIndex = i ? -1 : 0;
  button.addEventListener("click", () => s.open(tile.id));
  button.addEventListener("focus", () => {
    for (const other of s.host.querySelectorAll("button")) other.tabIndex = -1;
    button.tabIndex = 0;
  });
  const frame = node("span", "frame");
  const picture = node("img");
  picture.alt = tile.name;
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.src = tile.url;
  picture.addEventListener("error", () => frame.classList.add("gone"));
  frame.append(picture);
  button.append(frame, node("span", "name", tile.name.split("/").pop()));
  const line = node("span", "line");
  if (tile.color) {
    const dot = node("i");
    dot.style.background = tile.color;
    line.append(dot);
  }
  line.append(node("span", tile.label ? "label" : "none", tile.label || "\u00a0"));
  if (tile.note) line.append(node("span", "note", tile.note));
  button.append(line);
  cell.append(button);
  return cell;
}

function walk(s, e) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow(s), ArrowDown: perRow(s) }[e.key];
  if (!step || e.ctrlKey || e.metaKey || e.altKey) return;
  const all = [...s.host.querySelectorAll("button")];
  const at = all.indexOf(e.composedPath()[0]);
  const next = all[at + step];
  if (at < 0 || !next) return;
  e.preventDefault();
  e.stopPropagation(); // the page's own arrow keys
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function perRow(s) {
  if (s.host.classList.contains("row")) return s.host.children.length;
  return Math.max(1, getComputedStyle(s.host).gridTemplateColumns.split(" ").length);
}
