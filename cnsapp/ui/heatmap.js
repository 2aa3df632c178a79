// A whole slide with its tiles' predictions over it. Everything moves here, without the server.
const MOUNTED = new WeakMap();
const START = 55;
const CLASSES = "";
const FAINT = 0.35; // of the opacity, where the model is unsure
const SCALE = [[31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];

export default function ({ data, parentElement }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: node("div", "heat"), opacity: recall("cnsapp.heat", START), shown: CLASSES, drawn: "" };
    parentElement.append(s.host);
    MOUNTED.set(parentElement, s);
  }
  const drawn = JSON.stringify(data);
  if (drawn !== s.drawn) {
    s.data = data;
    s.drawn = drawn;
    if (!data.names.includes(s.shown)) s.shown = CLASSES;
    build(s);
  }
  return () => {
    s.sight?.disconnect();
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function build(s) {
  const { width, height, image_url, name } = s.data;
  s.sight?.disconnect();
  s.stage = node("div", "stage");
  s.stage.style.setProperty("--ratio", width / height);
  s.picture = node("img");
  Object.assign(s.picture, { src: image_url, alt: `The slide ${name}`, draggable: false });
  s.canvas = node("canvas");
  s.canvas.setAttribute("role", "img");
  s.canvas.setAttribute("aria-label", `Predictions of ${s.data.x.length} tiles over ${name}`);
  s.frame = node("div", "frame");
  s.tip = node("div", "tip");
  s.tip.setAttribute("role", "status"); // what the arrow keys come to is read out
  s.bar = node("div", "bar");
  s.stage.append(s.picture, s.canvas, s.bar, s.frame, s.tip);
  s.stage.tabIndex = 0;
  s.stage.setAttribute("role", "group");
  s.stage.setAttribute("aria-label", "The map: arrow keys go from tile to tile, Escape leaves");
  s.stage.addEventListener("pointermove", (event) => point(s, event));
  s.stage.addEventListener("pointerleave", () => choose(s, -1));
  s.stage.addEventListener("keydown", (event) => walk(s, event));
  s.stage.addEventListener("blur", () => choose(s, -1));
  choose(s, -1);
  s.legend = node("div", "legend");
  s.host.replaceChildren(controls(s), s.stage, s.legend);
  s.sight = new ResizeObserver(() => paint(s));
  s.sight.observe(s.stage);
  show(s);
}

function controls(s) {
  const row = node("div", "controls");
  const what = node("label", "", "Show");
  const select = node("select");
  select.append(new Option("Predicted class", CLASSES));
  s.data.names.forEach((name) => select.append(new Option(`Probability of ${name}`, name)));
  select.value = s.shown;
  select.addEventListener("change", () => ((s.shown = select.value), show(s)));
  what.append(select);
  const how = node("label", "", "Map");
  const slider = node("input");
  Object.assign(slider, { type: "range", min: 0, max: 100, step: 1, value: s.opacity });
  slider.setAttribute("aria-label", "Opacity of the map");
  s.readout = node("output");
  slider.addEventListener("input", () => {
    s.opacity = Number(slider.value);
    keep("cnsapp.heat", s.opacity);
    fade(s);
  });
  how.append(slider, s.readout);
  const save = node("button", "save", "Download PNG");
  save.type = "button";
  save.addEventListener("click", () => download(s));
  row.append(what, how, save);
  return row;
}

function show(s) {
  fade(s);
  paint(s);
  s.legend.replaceChildren(...legend(s));
}

function fade(s) {
  s.host.style.setProperty("--opacity", s.opacity / 100);
  s.readout.textContent = `${s.opacity} %`;
}

function paint(s) {
  const box = s.stage.getBoundingClientRect();
  if (!box.width) return;
  const dense = window.devicePixelRatio || 1;
  s.canvas.width = Math.round(box.width * dense);
  s.canvas.height = Math.round(box.height * dense);
  drawTiles(s, s.canvas.getContext("2d"), s.canvas.width, s.canvas.height);
  drawBar(s, box.width);
}

// Tile i on a map of w x h pixels: its own part where tiles overlap, edges shared without a gap.
function place(d, i, w, h) {
  const inset = (d.side[i] - d.cell[i]) / 2;
  const [x0, y0] = [d.x[i] + inset, d.y[i] + inset].map((v, k) => Math.round((v / (k ? d.height : d.width)) * (k ? h : w)));
  const x1 = Math.round(((d.x[i] + inset + d.cell[i]) / d.width) * w);
  const y1 = Math.round(((d.y[i] + inset + d.cell[i]) / d.height) * h);
  return [x0, y0, Math.max(1, x1 - x0), Math.max(1, y1 - y0)];
}

function drawTiles(s, brush, w, h) {
  const d = s.data;
  const k = d.names.indexOf(s.shown);
  for (let i = 0; i < d.x.length; i++) {
    if (k < 0) {
      brush.globalAlpha = d.unsure[i] ? FAINT : 1;
      brush.fillStyle = d.colors[d.best[i]];
    } else {
      brush.globalAlpha = 1;
      brush.fillStyle = heat(d.p[i][k] / 1000);
    }
    brush.fillRect(...place(d, i, w, h));
  }
  brush.globalAlpha = 1;
}

function heat(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  const mixed = SCALE[low].map((v, i) => Math.round(v + (SCALE[low + 1][i] - v) * (at - low)));
  return `rgb(${mixed.join(" ")})`;
}

function drawBar(s, width) {
  const length = barLength(s.data, width);
  s.bar.hidden = !length;
  if (!length) return;
  const line = node("i");
  line.style.width = `${length.px}px`;
  s.bar.replaceChildren(length.text, line);
}

function barLength(d, width) {
  if (!d.um_per_px) return null;
  const um = (d.um_per_px * d.width) / width; // a pixel of the screen
  const most = um * 160;
  const power = 10 ** Math.floor(Math.log10(most));
  const nice = [5, 2, 1].map((n) => n * power).find((n) => n <= most);
  return { px: nice / um, text: nice >= 1000 ? `${nice / 1000} mm` : `${nice} µm` };
}

function legend(s) {
  const d = s.data;
  if (s.shown !== CLASSES) {
    const scale = node("span", "", "0");
    const strip = node("i", "scale");
    strip.style.background = `linear-gradient(90deg, ${SCALE.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
    scale.append(strip, "1");
    return [scale, node("em", "", `probability of ${s.shown}`)];
  }
  const items = d.names.map((name, k) => {
    const item = node("span");
    const dot = node("i");
    dot.style.background = d.colors[k];
    const n = d.best.filter((b) => b === k).length;
    item.append(dot, name, node("em", "", n.toLocaleString("en")));
    return item;
  });
  const faint = d.unsure.filter(Boolean).length;
  if (faint) items.push(node("em", "", `${faint.toLocaleString("en")} fainter: unsure`));
  return items;
}

function point(s, event) {
  const d = s.data;
  const box = s.stage.getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  choose(s, tileAt(d, (left / box.width) * d.width, (top / box.height) * d.height), [left, top]);
}

// From tile to tile with the arrow keys: to the nearest one within 45 degrees of the way.
function walk(s, event) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape" && s.at >= 0) choose(s, -1);
  else if (way && s.data.x.length) choose(s, s.at < 0 ? 0 : next(s.data, s.at, way));
  else return;
  event.preventDefault();
  event.stopPropagation(); // the page's own keys
}

function next(d, from, [wx, wy]) {
  let [found, least] = [from, Infinity];
  for (let i = 0; i < d.x.length; i++) {
    const [dx, dy] = [middle(d, i)[0] - middle(d, from)[0], middle(d, i)[1] - middle(d, from)[1]];
    const [along, aside] = [dx * wx + dy * wy, Math.abs(dx * wy) + Math.abs(dy * wx)];
    if (along > 0 && aside <= along && along + 2 * aside < least) [found, least] = [i, along + 2 * aside];
  }
  return found;
}

function middle(d, i) {
  return [d.x[i] + d.side[i] / 2, d.y[i] + d.side[i] / 2];
}

// Frame a tile and say what was predicted, beside the pointer or the tile itself.
function choose(s, i, at) {
  const d = s.data;
  s.at = i;
  s.frame.hidden = s.tip.hidden = i < 0;
  if (i < 0) return;
  const box = s.stage.getBoundingClientRect();
  const scale = box.width / d.width;
  Object.assign(s.frame.style, {
    left: `${d.x[i] * scale}px`,
    top: `${d.y[i] * scale}px`,
    width: `${d.side[i] * scale}px`,
    height: `${d.side[i] * scale}px`,
  });
  s.tip.replaceChildren(...said(s, i).map((line) => node("div", "", line)));
  const [left, top] = at ?? [(d.x[i] + d.side[i]) * scale, (d.y[i] + d.side[i]) * scale];
  s.tip.style.left = left > box.width - 220 ? `${left - 14 - s.tip.offsetWidth}px` : `${left + 14}px`;
  s.tip.style.top = `${Math.min(top + 14, box.height - s.tip.offsetHeight - 4)}px`;
}

function said(s, i) {
  const d = s.data;
  const best = d.best[i];
  const k = d.names.indexOf(s.shown);
  const lines = [`${d.names[best]}  ${(d.p[i][best] / 1000).toFixed(2)}${d.unsure[i] ? ", unsure" : ""}`];
  if (k >= 0 && k !== best) lines.push(`${d.names[k]}  ${(d.p[i][k] / 1000).toFixed(2)}`);
  lines.push(`x ${d.x[i].toLocaleString("en")}, y ${d.y[i].toLocaleString("en")}`);
  if (d.fold[i] !== null) lines.push("predicted unseen (out of fold)");
  return lines;
}

function tileAt(d, x, y) {
  let found = -1;
  let nearest = Infinity;
  for (let i = 0; i < d.x.length; i++) {
    const [dx, dy] = [x - d.x[i], y - d.y[i]];
    if (dx < 0 || dy < 0 || dx >= d.side[i] || dy >= d.side[i]) continue;
    const off = Math.hypot(dx - d.side[i] / 2, dy - d.side[i] / 2);
    if (off < nearest) [found, nearest] = [i, off];
  }
  return found;
}

async function download(s) {
  await s.picture.decode();
  const [w, h, line, pad] = [s.picture.naturalWidth, s.picture.naturalHeight, 26, 14];
  const texts = [...s.legend.children].map((item) => item.textContent);
  const canvas = node("canvas");
  canvas.width = w;
  canvas.height = h + line * (texts.length + 1) + 2 * pad;
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(s.picture, 0, 0, w, h);
  const layer = node("canvas");
  Object.assign(layer, { width: w, height: h });
  drawTiles(s, layer.getContext("2d"), w, h);
  brush.globalAlpha = s.opacity / 100;
  brush.drawImage(layer, 0, 0);
  brush.globalAlpha = 1;
  saveBar(s, brush, w, h);
  brush.font = "16px sans-serif";
  brush.textBaseline = "middle";
  brush.fillStyle = "#14191b";
  brush.fillText(`${s.data.name}, ${s.data.model}`, pad, h + pad + line / 2);
  saveLegend(s, brush, w, h + pad + line, line, pad);
  const link = node("a");
  link.href = canvas.toDataURL("image/png");
  link.download = `${s.data.name.split("/").pop().replace(/\.[^.]*$/, "")}-heat-map.png`;
  link.click();
}

function saveBar(s, brush, w, h) {
  const length = barLength(s.data, w);
  if (!length) return;
  brush.fillStyle = "rgb(255 255 255 / .8)";
  brush.fillRect(12, h - 46, length.px + 16, 34);
  brush.fillStyle = "#14191b";
  brush.fillRect(20, h - 20, length.px, 3);
  brush.font = "14px sans-serif";
  brush.fillText(length.text, 20, h - 27);
}

function saveLegend(s, brush, w, top, line, pad) {
  const d = s.data;
  if (s.shown !== CLASSES) {
    for (let i = 0; i < 200; i++) {
      brush.fillStyle = heat(i / 199);
      brush.fillRect(pad + 20 + i, top + 6, 1, 14);
    }
    brush.fillStyle = "#14191b";
    brush.fillText("0", pad, top + line / 2);
    brush.fillText(`1   probability of ${s.shown}`, pad + 230, top + line / 2);
    return;
  }
  d.names.forEach((name, k) => {
    brush.fillStyle = d.colors[k];
    brush.fillRect(pad, top + k * line + 6, 14, 14);
    brush.fillStyle = "#14191b";
    const n = d.best.filter((b) => b === k).length;
    brush.fillText(`${name}  ${n.toLocaleString("en")}`, pad + 24, top + k * line + line / 2);
  });
}
