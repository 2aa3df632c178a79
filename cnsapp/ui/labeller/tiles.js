// Tiles of the picture on screen: which are needed, fetched a few at a time, kept while it is shown.

const TILE = 512;
const AT_ONCE = 6; // requests; browsers open no more to one host
const MOST_KEPT = 120; // decoded tiles: about 1 MB each
const PICTURE = "picture"; // the layer of the stored picture; the others are channels, by index

function newTiles() {
  return { layers: new Map(), kept: new Map(), loading: new Map(), joined: new Map(), refused: "" };
}

// Forget the picture that was shown: its requests and its tiles.
function dropTiles(v) {
  const { layers, kept, loading } = v.tiles;
  for (const layer of layers.values()) clearTimeout(layer.timer);
  for (const stop of loading.values()) stop.abort();
  for (const bitmap of kept.values()) bitmap.close();
  v.tiles = newTiles();
}

const ofLayer = (row, layer) => `v=${row.version}${layer === PICTURE ? "" : `&channel=${layer}`}`;

// Ask the server for the tiles of a layer, again and again while it makes them.
function askLayer(v, name) {
  if (v.tiles.layers.has(name)) return v.tiles.layers.get(name);
  const layer = { ready: false, levels: 0, timer: 0 };
  const { tiles, row } = v;
  tiles.layers.set(name, layer);
  const ask = async (wait) => {
    let answer, found;
    try {
      answer = await fetch(`/img/tiles/${row.id}.json?${ofLayer(row, name)}`);
      found = await answer.json();
    } catch (error) {
      found = null;
    }
    if (v.tiles !== tiles) return; // another picture is shown
    if (!found || answer.status === 202) layer.timer = setTimeout(() => ask(Math.min(1000, wait * 1.5)), wait);
    else if (answer.ok) Object.assign(layer, { ready: true, levels: found.levels });
    else tiles.refused = found.error || "The picture cannot be shown more closely.";
    v.redraw();
  };
  ask(120);
  return layer;
}

// The level whose pixels are at most as large as those of the screen, or else the finest.
function levelFor(scale, levels) {
  return Math.max(0, Math.min(levels - 1, Math.floor(Math.log2(1 / scale) + 0.001)));
}

// Places [level, x, y] of the tiles that a part of the picture (in its pixels) touches.
function placesIn(v, level, part) {
  const side = TILE * 2 ** level;
  const last = (length) => Math.max(0, Math.ceil(length / side) - 1);
  const places = [];
  for (let y = Math.max(0, Math.floor(part.y0 / side)); y <= Math.min(last(v.h), Math.floor(part.y1 / side)); y++)
    for (let x = Math.max(0, Math.floor(part.x0 / side)); x <= Math.min(last(v.w), Math.floor(part.x1 / side)); x++)
      places.push([level, x, y]);
  return places;
}

const tileKey = (layer, [level, x, y]) => `${layer}/${level}/${x}_${y}`;

function keptTile(v, key) {
  const { kept } = v.tiles;
  const bitmap = kept.get(key);
  if (bitmap) kept.delete(key), kept.set(key, bitmap); // the last used is the last to go
  return bitmap;
}

// Load what is needed, the middle first; stop what is needed no more.
function loadTiles(v, wanted) {
  const { loading } = v.tiles;
  const keys = new Set(wanted.map(({ key }) => key));
  for (const [key, stop] of loading) if (!keys.has(key)) stop.abort(), loading.delete(key);
  for (const one of wanted) {
    if (loading.size >= AT_ONCE) break;
    if (!loading.has(one.key)) loadTile(v, one);
  }
}

async function loadTile(v, { layer, place, key }) {
  const { tiles, row } = v;
  const stop = new AbortController();
  tiles.loading.set(key, stop);
  let bitmap = null;
  try {
    const [level, x, y] = place;
    const answer = await fetch(`/img/tiles/${row.id}/${level}/${x}_${y}.jpg?${ofLayer(row, layer)}`, { signal: stop.signal });
    if (answer.ok) bitmap = await createImageBitmap(await answer.blob());
    else if (v.tiles === tiles) againLayer(v, layer);
  } catch (error) {
    if (error.name !== "AbortError" && v.tiles === tiles) againLayer(v, layer);
  }
  if (v.tiles !== tiles) return void (bitmap && bitmap.close());
  if (tiles.loading.get(key) === stop) tiles.loading.delete(key);
  if (bitmap) keep(tiles, key, bitmap);
  v.redraw();
}

function keep(tiles, key, bitmap) {
  tiles.kept.set(key, bitmap);
  for (const [old, gone] of tiles.kept) {
    if (tiles.kept.size <= MOST_KEPT) break;
    tiles.kept.delete(old);
    gone.close();
  }
}

// The tiles were deleted on the server, or it does not answer: ask for them anew, after a moment.
function againLayer(v, name) {
  const layer = v.tiles.layers.get(name);
  if (!layer || !layer.ready) return;
  layer.ready = false;
  layer.timer = setTimeout(() => (v.tiles.layers.delete(name), v.redraw()), 400);
}

// Lay gray tiles of channels over each other in their colours, light adding to light.
function joinChannels(v, channels, place) {
  const key = `${place}|${channels.map((c) => c.index + c.color)}`;
  const { joined } = v.tiles;
  if (joined.has(key)) return joined.get(key);
  const parts = channels.map((c) => keptTile(v, tileKey(c.index, place)));
  if (parts.some((part) => !part)) return null;
  const { width, height } = parts[0];
  const sheet = () => Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  const sum = sheet();
  const one = sheet();
  sum.globalCompositeOperation = "lighter";
  channels.forEach((c, i) => {
    one.globalCompositeOperation = "copy";
    one.drawImage(parts[i], 0, 0);
    one.globalCompositeOperation = "multiply";
    one.fillStyle = c.color;
    one.fillRect(0, 0, width, height);
    sum.drawImage(one.canvas, 0, 0);
  });
  joined.set(key, sum.canvas);
  if (joined.size > MOST_KEPT) joined.delete(joined.keys().next().value);
  return sum.canvas;
}
