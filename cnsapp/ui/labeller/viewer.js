// A picture in its frame, to be looked at closely: zoom, pan, look, scale bar.
//
// As long as the whole picture is shown as it is stored, the frame's own <img> shows it, at once.
// Closer, or with other channels, a canvas over it is drawn: the display-size picture first, and
// tiles of a larger picture as they come.

const CLOSEST = 40; // pixels of the screen that one pixel of the picture may fill
const PIXELS_FROM = 3; // enlarged more than this, pixels are shown as squares
const STEP = 1.5; // of one press of + or -

// `frame` holds the <img>; `root` goes where the frame would. `umPerPx()`: of files that do not say.
function newViewer(frame, umPerPx) {
  const v = {
    frame, umPerPx, row: null, img: null, base: null, about: null,
    w: 0, h: 0, fw: 0, fh: 0, // sides of the picture in its pixels, of the frame in the screen's
    s: 0, x: 0, y: 0, // scale (0: the whole picture) and where its corner lies in the frame
    look: readLook(), tiles: newTiles(), raf: 0, after: 0, ui: {},
  };
  v.redraw = () => { if (!v.raf) v.raf = requestAnimationFrame(() => draw(v)); };
  v.changed = () => (askAbout(v), v.redraw(), afterwards(v));
  v.learn = () => askAbout(v);
  v.lay = (url, title, strength) => layOver(v, url, title, strength);
  v.show = (row, img) => showClose(v, row, img);
  v.empty = () => showClose(v, null, null);
  v.key = (e) => viewerKey(v, e);
  v.zoomed = () => v.s > 0;
  buildViewer(v);
  const watch = new ResizeObserver(() => measure(v));
  watch.observe(v.root);
  v.stop = () => (watch.disconnect(), cancelAnimationFrame(v.raf), clearTimeout(v.after), dropTiles(v));
  frame.viewer = v;
  return v;
}

function buildViewer(v) {
  const { ui } = v;
  ui.canvas = el("canvas", "closeup", { "aria-hidden": "true" });
  ui.bar = el("div", "scalebar", { hidden: "" }, el("span", "", {}), el("i", ""));
  ui.note = el("div", "note", { role: "status", hidden: "" });
  ui.changed = el("div", "changed", { hidden: "" });
  ui.readout = el("output", "", { "aria-label": "Scale of the picture" });
  ui.whole = button("1:1", "Z", "One pixel of the picture on one of the screen, and back to the whole (z)", () => toggleWhole(v));
  v.root = el("div", "eye", {}, v.frame, ui.canvas, el("div", "marks", {}, ui.bar, ui.note), ui.changed,
    el("div", "lens", { role: "group", "aria-label": "Zoom and look" },
      button("−", "", "Smaller (−)", () => zoomBy(v, 1 / STEP)), ui.readout,
      button("+", "", "Larger (+)", () => zoomBy(v, STEP)), ui.whole, buildLook(v)));
  paintLook(v);
  listenToViewer(v);
}

// Another picture, whole. Reads no layout and waits for nothing: a key press shows it in this frame.
function showClose(v, row, img) {
  if (v.tiles.layers.size) dropTiles(v);
  if (v.base && v.base !== v.img) v.base.close();
  v.row = row;
  v.img = img;
  v.base = null;
  v.about = null;
  v.s = 0;
  v.w = (row && row.width) || 0;
  v.h = (row && row.height) || 0;
  setClose(v, false);
  v.lay(null); // it was of the picture before
  afterwards(v);
}

// What need not be there in the same frame as the picture.
function afterwards(v) {
  if (v.after) return;
  v.after = setTimeout(() => {
    v.after = 0;
    v.root.classList.toggle("nothing", !v.row);
    if (!v.row) return;
    if (v.row.channels > 1 || !v.row.width) askAbout(v);
    paintLook(v);
    paintScale(v);
  }, 30);
}

function askAbout(v) {
  const { row } = v;
  if (!row || v.about) return;
  v.about = { channels: [] }; // asked for; one answer a picture
  if (!(row.channels > 1) && row.width) return;
  fetch(`/img/about/${row.id}.json`).then((answer) => (answer.ok ? answer.json() : null)).then((found) => {
    if (!found || v.row !== row) return;
    v.about = found;
    [v.w, v.h] = [found.width, found.height];
    paintLook(v);
    paintScale(v);
    v.redraw();
  }, () => {});
}

function measure(v) {
  v.fw = v.root.clientWidth;
  v.fh = v.root.clientHeight;
  if (v.s) moveTo(v, v.s, v.x, v.y);
  afterwards(v);
  v.redraw();
}

// scale and place ------------------------------------------------------------------------------

const dpr = () => window.devicePixelRatio || 1;

function sides(v) {
  if (!v.w && v.img && v.img.naturalWidth) [v.w, v.h] = [v.img.naturalWidth, v.img.naturalHeight];
  return v.w > 0 && v.fw > 0;
}

const wholeScale = (v) => Math.min(v.fw / v.w, v.fh / v.h);

function placeOf(v) {
  if (v.s) return v;
  const s = wholeScale(v);
  return { s, x: (v.fw - v.w * s) / 2, y: (v.fh - v.h * s) / 2 };
}

// The picture stays in the frame: in the middle where it is smaller, without a gap where larger.
function moveTo(v, s, x, y) {
  const inside = (at, room, length) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, at)));
  v.s = s;
  v.x = inside(x, v.fw, v.w * s);
  v.y = inside(y, v.fh, v.h * s);
  v.redraw();
}

// Zoom so that the point (cx, cy) of the frame stays where it is.
function zoomTo(v, scale, cx = v.fw / 2, cy = v.fh / 2) {
  if (!sides(v) || !v.row) return;
  const at = placeOf(v);
  const whole = wholeScale(v);
  const s = Math.max(Math.min(whole, 1 / dpr()), Math.min(Math.max(CLOSEST / dpr(), whole), scale));
  if (Math.abs(s / whole - 1) < 0.01) v.s = 0, v.redraw();
  else moveTo(v, s, cx - ((cx - at.x) / at.s) * s, cy - ((cy - at.y) / at.s) * s);
  afterwards(v);
}

const zoomBy = (v, by, cx, cy) => sides(v) && zoomTo(v, placeOf(v).s * by, cx, cy);
const toggleWhole = (v, cx, cy) => sides(v) && zoomTo(v, v.s ? wholeScale(v) : 1 / dpr(), cx, cy);
const panBy = (v, dx, dy) => moveTo(v, v.s, v.x + dx, v.y + dy);

// painting -------------------------------------------------------------------------------------

function setClose(v, close) {
  if (v.close === close) return;
  v.close = close;
  v.root.classList.toggle("close", close);
}

function draw(v) {
  v.raf = 0;
  const on = v.row ? channelsOn(v) : null;
  const close = !!v.row && sides(v) && (v.s > 0 || on !== null);
  setClose(v, close);
  placeLaid(v);
  if (!close) return paintNote(v, "");
  const { canvas } = v.ui;
  const pixels = dpr();
  const [cw, ch] = [Math.round(v.fw * pixels), Math.round(v.fh * pixels)];
  if (canvas.width !== cw || canvas.height !== ch) [canvas.width, canvas.height] = [cw, ch];
  const brush = (v.brush = v.brush || canvas.getContext("2d"));
  const at = placeOf(v);
  brush.clearRect(0, 0, cw, ch);
  const screen = { s: at.s * pixels, x: at.x * pixels, y: at.y * pixels, cw, ch };
  const wanted = on ? drawChannels(v, brush, screen, on) : drawPicture(v, brush, screen);
  loadTiles(v, wanted);
  paintNote(v, v.tiles.refused || (v.tiles.waits || wanted.length ? "Sharpening…" : ""));
  if (v.s) paintScale(v);
}

// How many of its pixels, along a side, the display-size picture has; 1 until it is here.
function shareOf({ img, w }) {
  return img && img.naturalWidth ? Math.min(1, img.naturalWidth / w) : 1;
}

function drawPicture(v, brush, screen) {
  const share = shareOf(v);
  const large = share < 1;
  const finer = large && screen.s > share * 1.02;
  v.tiles.waits = false;
  const layer = finer ? askLayer(v, PICTURE) : null;
  if (!layer || !layer.ready) {
    v.tiles.waits = !v.img.naturalWidth || (!!layer && !v.tiles.refused); // also before it has come at all
    drawBase(v, brush, screen, large);
    return [];
  }
  const find = (place) => keptTile(v, tileKey(PICTURE, place));
  const missing = drawTiles(v, brush, screen, layer.levels, find, () => drawBase(v, brush, screen, large));
  return missing.map((place) => ({ layer: PICTURE, place, key: tileKey(PICTURE, place) }));
}

function drawChannels(v, brush, screen, on) {
  const layers = on.map((c) => askLayer(v, c.index));
  const ready = layers.every((layer) => layer.ready);
  v.tiles.waits = !ready && !v.tiles.refused;
  if (!ready) {
    drawBase(v, brush, screen, shareOf(v) < 1);
    return [];
  }
  const black = () => {
    brush.fillStyle = "#000";
    brush.fillRect(screen.x, screen.y, v.w * screen.s, v.h * screen.s);
  };
  if (!on.length) return black(), [];
  const find = (place) => joinChannels(v, on, place);
  const missing = drawTiles(v, brush, screen, layers[0].levels, find, black);
  return missing.flatMap((place) => on.map((c) => ({ layer: c.index, place, key: tileKey(c.index, place) })))
    .filter(({ key }) => !v.tiles.kept.has(key));
}

// The display-size picture. Only of a smaller picture is it the picture's own pixels.
function drawBase(v, brush, screen, large) {
  const { img } = v;
  if (!v.base && img && img.complete && img.naturalWidth) {
    v.base = img; // until it is decoded for good
    createImageBitmap(img).then((made) => (v.img === img && v.base === img ? (v.base = made) : made.close()), () => {});
  }
  if (!v.base) return;
  brush.imageSmoothingEnabled = large || screen.s <= PIXELS_FROM || !v.s;
  const [bw, bh] = v.base === img ? [img.naturalWidth, img.naturalHeight] : [v.base.width, v.base.height];
  // only what is seen of it: an enlarged picture can be much larger than the screen
  const [kx, ky] = [(v.w * screen.s) / bw, (v.h * screen.s) / bh];
  const x0 = Math.max(0, Math.floor(-screen.x / kx)), x1 = Math.min(bw, Math.ceil((screen.cw - screen.x) / kx));
  const y0 = Math.max(0, Math.floor(-screen.y / ky)), y1 = Math.min(bh, Math.ceil((screen.ch - screen.y) / ky));
  if (x1 <= x0 || y1 <= y0) return;
  brush.drawImage(v.base, x0, y0, x1 - x0, y1 - y0, screen.x + x0 * kx, screen.y + y0 * ky, (x1 - x0) * kx, (y1 - y0) * ky);
}

// Draw the tiles of the right level; where one is missing, the next coarser one that is there.
// Returns the places that are missing, those in the middle of the screen first.
function drawTiles(v, brush, screen, levels, find, under) {
  const level = levelFor(screen.s, levels);
  const part = { x0: -screen.x / screen.s, y0: -screen.y / screen.s };
  part.x1 = Math.min(v.w, (screen.cw - screen.x) / screen.s) - 1e-6;
  part.y1 = Math.min(v.h, (screen.ch - screen.y) / screen.s) - 1e-6;
  const found = placesIn(v, level, part).map((place) => ({ place, tile: find(place) }));
  if (found.some(({ tile }) => !tile)) under();
  brush.imageSmoothingEnabled = level > 0 || screen.s <= PIXELS_FROM || !v.s;
  for (const { place, tile } of found) {
    if (tile) drawTile(brush, screen, place, tile, v);
    else drawAncestor(v, brush, screen, place, levels, find);
  }
  const middle = ({ place: [, x, y] }) => {
    const side = TILE * 2 ** level;
    return Math.hypot((x + 0.5) * side - (part.x0 + part.x1) / 2, (y + 0.5) * side - (part.y0 + part.y1) / 2);
  };
  return found.filter(({ tile }) => !tile).sort((a, b) => middle(a) - middle(b)).map(({ place }) => place);
}

// Edges lie on whole pixels of the screen, the same for neighbours, so that no seam shows.
function edges(v, screen, [level, x, y]) {
  const side = TILE * 2 ** level;
  const at = (start, k, most) => Math.round(start + Math.min(k * side, most) * screen.s);
  return [at(screen.x, x, v.w), at(screen.y, y, v.h), at(screen.x, x + 1, v.w), at(screen.y, y + 1, v.h)];
}

function drawTile(brush, screen, place, tile, v) {
  const [x0, y0, x1, y1] = edges(v, screen, place);
  brush.drawImage(tile, x0, y0, x1 - x0, y1 - y0);
}

function drawAncestor(v, brush, screen, [level, x, y], levels, find) {
  for (let up = level + 1; up < levels; up++) {
    const scale = 2 ** (up - level);
    const place = [up, Math.floor(x / scale), Math.floor(y / scale)];
    const tile = find(place);
    if (!tile) continue;
    const [x0, y0, x1, y1] = edges(v, screen, [level, x, y]);
    brush.save();
    brush.beginPath();
    brush.rect(x0, y0, x1 - x0, y1 - y0);
    brush.clip();
    drawTile(brush, screen, place, tile, v);
    brush.restore();
    return;
  }
}

function paintNote(v, text) {
  const { note } = v.ui;
  if (note.textContent === text) return;
  note.hidden = !text;
  note.textContent = text;
  note.classList.toggle("busy", text === "Sharpening…");
}

function paintScale(v) {
  const { bar, readout, whole } = v.ui;
  if (!v.row || !sides(v)) return;
  const { s } = placeOf(v);
  const share = 100 * s * dpr();
  setText(readout, `${share >= 10 ? Math.round(share) : share.toPrecision(2)} %`);
  setText(whole.firstChild, v.s ? "Fit" : "1:1");
  const um = (v.about && v.about.um_per_px) || v.row.um_per_px || v.umPerPx();
  const length = um ? scaleBar(um / s, Math.min(BAR_ROOM, v.fw / 4)) : null;
  bar.hidden = !length;
  if (!length) return;
  setText(bar.firstChild, length.text);
  bar.lastChild.style.width = `${length.px.toFixed(2)}px`;
}

const setText = (node, text) => void (node.textContent !== text && (node.textContent = text));
