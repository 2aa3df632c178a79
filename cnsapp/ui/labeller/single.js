// One by one: a large picture, a class key, the next picture in the same frame.

const AHEAD = 5; // pictures fetched and decoded before they are needed

function buildSingle(s) {
  s.pos = 0;
  s.pictures = new Map();
  s.ui.frame = el("div", "frame", { role: "img", tabindex: "0" });
  s.viewer = newViewer(s.ui.frame, () => s.data.um_per_px);
  s.ui.name = el("span", "name");
  s.ui.now = el("span", "now");
  s.ui.why = el("span", "why");
  s.ui.place = el("span", "place");
  const foot = el("div", "foot", {},
    button("‹", "←", "Previous image", () => goTo(s, s.pos - 1)),
    s.ui.name, s.ui.now, s.ui.why, s.ui.place,
    button("›", "→", "Next image", () => goTo(s, s.pos + 1)));
  s.ui.view.replaceChildren(el("div", "one", {}, s.viewer.root, foot));
}

function goTo(s, pos) {
  s.pos = Math.max(0, Math.min(s.images.length, pos));
  paintSingle(s);
  askForMore(s);
}

function paintSingle(s) {
  const row = s.images[s.pos];
  const { frame, name, now, why, place } = s.ui;
  if (!row) return paintEnd(s);
  const label = shownLabel(s, row.id);
  const word = labelWord(s, label);
  if (frame.dataset.id !== String(row.id)) showPicture(s, frame, row);
  name.textContent = name.title = row.name;
  now.replaceChildren();
  if (word) {
    const swatch = el("span", "swatch");
    if (label.state === "label") swatch.style.background = (s.classes.get(label.class_id) || {}).color || "";
    else swatch.hidden = true;
    now.append(swatch, word, el("span", "tick", { text: label.state === "wait" ? "" : s.ahead.has(row.id) ? "…" : "✓" }));
  }
  const [reason, because] = WHY[row.reason] || ["", ""];
  why.textContent = s.data.blind || s.data.ask.strategy === "random" ? "" : reason;
  why.title = because;
  place.textContent = `${number(s.pos)} back · ${number(s.images.length - s.pos - 1)} ahead`;
  frame.setAttribute("aria-label", `${baseName(row.name)}, ${word || "no label"}`);
  paintChoice(s, [row.id]);
}

function paintEnd(s) {
  const { frame, name, now, why, place } = s.ui;
  const { text, steps } = endOfQueue(s);
  frame.dataset.id = "";
  frame.classList.remove("broken", "loading");
  frame.style.backgroundImage = "";
  const buttons = steps.map(([title, next]) => button(title, "", title, () => s.trigger("next", next)));
  frame.replaceChildren(el("div", "empty end", {}, el("p", "", { text }), el("div", "steps", {}, ...buttons)));
  frame.setAttribute("aria-label", text);
  s.viewer.empty();
  name.textContent = now.textContent = why.textContent = "";
  place.textContent = s.images.length ? `${number(s.images.length)} back` : "";
  paintChoice(s, []);
}

function showPicture(s, frame, row) {
  const entry = fetchPicture(s, row);
  frame.dataset.id = row.id;
  frame.replaceChildren(entry.img);
  frame.classList.toggle("loading", !entry.ready);
  frame.classList.remove("broken");
  // until the picture is here, its thumbnail stands in for it
  frame.style.backgroundImage = entry.ready ? "" : `url("${thumbUrl(row)}")`;
  const current = () => frame.dataset.id === String(row.id);
  const done = () => current() && (frame.classList.remove("loading"), (frame.style.backgroundImage = ""), frame.viewer.redraw());
  frame.viewer.show(row, entry.img);
  if (!entry.ready) entry.loaded.then(done, () => current() && showBroken(frame, row));
}

function showBroken(frame, row) {
  frame.viewer.empty();
  frame.classList.remove("loading");
  frame.classList.add("broken");
  frame.style.backgroundImage = "";
  frame.replaceChildren(el("p", "empty", { text: `${row.name} cannot be shown now. Skip it with S, or wait.` }));
}

// Pictures are fetched once and decoded before they are shown, so that a key shows the next at once.
function fetchPicture(s, row) {
  s.pictures = s.pictures || new Map();
  let entry = s.pictures.get(row.id);
  if (entry) return entry;
  const img = el("img", "", { alt: "", draggable: "false", decoding: "sync" }); // it is decoded when it is shown
  img.src = viewUrl(row);
  entry = { img, ready: false };
  entry.loaded = img.decode().then(() => void (entry.ready = true));
  entry.loaded.catch(() => s.pictures.delete(row.id));
  s.pictures.set(row.id, entry);
  return entry;
}

// Behind the frame that a key press draws: decoding the next pictures must not delay this one.
function lookAhead(s) {
  if (s.looking) return;
  s.looking = requestAnimationFrame(() => setTimeout(() => {
    s.looking = 0;
    fetchAhead(s);
    askForMore(s);
  }));
}

function fetchAhead(s) {
  for (let i = s.pos; i <= s.pos + AHEAD && i < s.images.length; i++) fetchPicture(s, s.images[i]);
  if (s.images[s.pos - 1]) fetchPicture(s, s.images[s.pos - 1]);
  const near = new Set(s.images.slice(Math.max(0, s.pos - 8), s.pos + 2 * AHEAD).map((row) => row.id));
  for (const id of s.pictures.keys()) if (!near.has(id)) s.pictures.delete(id);
}

function singleKey(s, e) {
  const steps = { ArrowLeft: s.pos - 1, ArrowRight: s.pos + 1, PageUp: s.pos - 1, PageDown: s.pos + 1, Home: 0 };
  if (!(e.key in steps)) return false;
  goTo(s, steps[e.key]);
  lookAhead(s);
  return true;
}

// Bring back an image whose label was undone: go to it, or put it into the queue here.
function bringBack(s, id) {
  s.queue.done.delete(id);
  if (s.at.has(id)) return goTo(s, s.at.get(id));
  const known = s.known.get(id);
  if (!known || !known.sha) return;
  s.images.splice(s.pos, 0, { id, sha: known.sha, version: known.version, name: known.name });
  s.at = new Map(s.images.map((row, i) => [row.id, i]));
  goTo(s, s.pos);
}
