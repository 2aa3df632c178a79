// A figure to be published: the picture and its maps, whole, with title, legend and scale bar.
// It is laid out once as a list of strokes, and drawn either as pixels or as SVG.

const LEAST_SIDE = 560; // px of a panel: smaller pictures are enlarged by a whole number
const INK = "#1b2427";
const WARNING = "#7a2e00";
const FONT = "Helvetica, Arial, sans-serif";

async function figureOf(s) {
  const picture = await readPicture(s.data.image_url);
  const [w, h] = [picture.naturalWidth, picture.naturalHeight];
  const times = Math.max(1, Math.ceil(LEAST_SIDE / w));
  const box = { w: w * times, h: h * times, times, picture };
  const ready = s.panels.filter((one) => one.levels);
  const all = s.look.beside ? [null, ...ready] : ready;
  const columns = Math.min(all.length, all.length > 4 ? Math.ceil(all.length / 2) : 4);
  const em = Math.round(box.w / 28);
  const gap = 2 * em;
  const ops = [];
  const width = gap + columns * (box.w + gap);
  let y = gap + em * 0.4;
  y = textOp(ops, s.data.name, gap, y, width - 2 * gap, em * 1.15, "bold");
  y = Math.round(textOp(ops, s.data.model, gap, y, width - 2 * gap, em) + em * 0.4);
  for (let row = 0; row * columns < all.length; row++) {
    const ends = all.slice(row * columns, (row + 1) * columns).map((one, k) =>
      panelOps(ops, s, box, one, gap + k * (box.w + gap), y, em));
    y = Math.round(Math.max(...ends) + gap);
  }
  y = textOp(ops, footOf(s, picture, times), gap, y - gap * 0.3, width - 2 * gap, em * 0.85);
  return { ops, width, height: Math.round(y + gap * 0.6) };
}

function panelOps(ops, s, box, one, x, top, em) {
  ops.push({ kind: "picture", image: box.picture, url: s.data.image_url, x, y: top, ...size(box), sharp: box.times > 1 });
  if (one && s.look.style === "contours") {
    for (const { colour, lines } of one.contours) ops.push({ kind: "lines", colour: hex(colour), lines, x, y: top, ...size(box), em });
  } else if (one) {
    ops.push({ kind: "map", image: one.coloured, x, y: top, ...size(box), alpha: s.look.opacity / 100 });
  }
  const um = s.data.um_per_px ? (s.data.um_per_px * s.data.width) / box.w : null;
  const bar = um ? scaleBar(um, box.w * 0.25) : null;
  if (bar) ops.push({ kind: "bar", x: x + em, y: top + box.h - em, length: bar.px, text: bar.text, em });
  ops.push({ kind: "frame", x, y: top, ...size(box) });
  if (one?.panel.mark) ops.push({ kind: "mark", text: `▲ ${one.panel.mark}`, x: x + em / 2, y: top + em / 2, w: widthOf(`▲ ${one.panel.mark}`, em, "bold") + em, h: em * 1.6, em });
  let y = top + box.h + em * 1.3;
  if (!one) return textOp(ops, "Original", x, y, box.w, em, "bold");
  y = textOp(ops, one.panel.title, x, y, box.w, em, "bold");
  y = textOp(ops, one.panel.method, x, y, box.w, em * 0.9);
  y = legendOps(ops, s, one, x, y - em * 0.4, box.w, em * 0.85);
  for (const line of one.panel.lines) {
    if (line.tone !== "wait") y = textOp(ops, line.text, x, y, box.w, em * 0.8);
  }
  return y;
}

const size = ({ w, h }) => ({ w, h });

function legendOps(ops, s, one, x, y, width, em) {
  ops.push({ kind: "scale", colours: coloursOf(s, one.panel), x, y, w: width, h: em * 0.7 });
  const { low, middle, high } = endsOf(one.panel);
  const places = [[low, x, "start"], [middle, x + width / 2, "middle"], [high, x + width, "end"]];
  const tight = widthOf(low + middle + high, em) > width - 3 * em; // long names: one under the other
  let end = y + em * 2;
  for (const [text, at, anchor] of places.filter(([text]) => text)) {
    ops.push({ kind: "text", text, x: at, y: end, px: em, anchor });
    if (tight && anchor !== "end") end += em * 1.35;
  }
  end = textOp(ops, one.panel.legend, x, end + em * 1.4, width, em);
  return end + em * 0.2;
}

function footOf(s, picture, times) {
  const { width, height } = s.data;
  const [w, h] = [picture.naturalWidth, picture.naturalHeight];
  const full = w >= width
    ? `${width} × ${height} px, the original resolution${times > 1 ? `; every pixel is drawn ${times} × ${times}` : ""}.`
    : `Display resolution, ${w} × ${h} of ${width} × ${height} px.`;
  return `${sayLook(s)} ${full}`;
}

function textOp(ops, text, x, y, width, px, weight = "normal") {
  let line = "";
  const put = () => {
    ops.push({ kind: "text", text: line, x, y, px, weight });
    y += px * 1.35;
  };
  for (const word of text.split(" ").filter(Boolean)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && widthOf(longer, px, weight) > width) put(), (line = word);
    else line = longer;
  }
  if (line) put();
  return y;
}

function widthOf(text, px, weight = "normal") {
  const brush = (widthOf.brush ??= newCanvas(1, 1).getContext("2d"));
  brush.font = `${weight} ${px}px ${FONT}`;
  return brush.measureText(text).width;
}

// as pixels ------------------------------------------------------------------------------------
async function asPng(figure) {
  const canvas = newCanvas(Math.round(figure.width), figure.height);
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  for (const op of figure.ops) PIXELS[op.kind](brush, op);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const PIXELS = {
  picture: (brush, op) => {
    brush.imageSmoothingEnabled = !op.sharp;
    brush.drawImage(op.image, op.x, op.y, op.w, op.h);
  },
  map: (brush, op) => {
    brush.imageSmoothingEnabled = true;
    brush.globalAlpha = op.alpha;
    brush.drawImage(op.image, op.x, op.y, op.w, op.h);
    brush.globalAlpha = 1;
  },
  lines: (brush, op) => strokeLines(brush, op, (x, y) => [op.x + x * op.w, op.y + y * op.h], op.em / 8, op.colour),
  frame: (brush, op) => {
    brush.strokeStyle = "#9aa5a8";
    brush.lineWidth = 1;
    brush.strokeRect(op.x, op.y, op.w, op.h);
  },
  text: (brush, op) => {
    brush.font = `${op.weight ?? "normal"} ${op.px}px ${FONT}`;
    brush.fillStyle = INK;
    brush.textAlign = { middle: "center", end: "right" }[op.anchor] ?? "left";
    brush.fillText(op.text, op.x, op.y);
    brush.textAlign = "left";
  },
  scale: (brush, op) => {
    const ramp = brush.createLinearGradient(op.x, 0, op.x + op.w, 0);
    op.colours.forEach((c, i) => ramp.addColorStop(i / (op.colours.length - 1), c));
    brush.fillStyle = ramp;
    brush.fillRect(op.x, op.y, op.w, op.h);
  },
  mark: (brush, op) => {
    brush.fillStyle = "#fff";
    brush.fillRect(op.x, op.y, op.w, op.h);
    brush.font = `bold ${op.em}px ${FONT}`;
    brush.fillStyle = WARNING;
    brush.fillText(op.text, op.x + op.em / 2, op.y + op.em * 1.15);
  },
  bar: (brush, op) => {
    for (const [colour, extra] of [["#fff", op.em * 0.3], [INK, 0]]) {
      brush.strokeStyle = brush.fillStyle = colour;
      brush.lineWidth = op.em * 0.22 + extra;
      brush.lineCap = "butt";
      brush.beginPath();
      brush.moveTo(op.x - extra / 2, op.y);
      brush.lineTo(op.x + op.length + extra / 2, op.y);
      brush.stroke();
      brush.font = `bold ${op.em}px ${FONT}`;
      brush.lineWidth = extra;
      if (extra) brush.strokeText(op.text, op.x, op.y - op.em * 0.5);
      else brush.fillText(op.text, op.x, op.y - op.em * 0.5);
    }
  },
};

function strokeLines(brush, { lines }, place, width, colour) {
  brush.lineCap = "round";
  for (const [style, wide] of [["rgb(255 255 255 / 0.85)", width + 2], [colour, width]]) {
    brush.beginPath();
    for (let i = 0; i + 3 < lines.length; i += 4) {
      brush.moveTo(...place(lines[i], lines[i + 1]));
      brush.lineTo(...place(lines[i + 2], lines[i + 3]));
    }
    brush.strokeStyle = style;
    brush.lineWidth = wide;
    brush.stroke();
  }
}

// as SVG ---------------------------------------------------------------------------------------
async function asSvg(figure, title) {
  const kept = new Map(); // the picture is the same in every panel: it is read once
  const parts = [];
  for (const [i, op] of figure.ops.entries()) parts.push(await VECTORS[op.kind](op, i, kept));
  const { width, height } = figure;
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
    `viewBox="0 0 ${width} ${height}" font-family="${FONT}" fill="${INK}"><title>${safe(title)}</title>` +
    `<rect width="${width}" height="${height}" fill="#fff"/>${parts.join("\n")}</svg>\n`;
  return new Blob([text], { type: "image/svg+xml" });
}

const VECTORS = {
  picture: async (op, _, kept) => {
    if (!kept.has(op.url)) kept.set(op.url, await asData(await (await fetch(op.url)).blob()));
    return `<image ${place(op)} preserveAspectRatio="none"${op.sharp ? ' style="image-rendering:pixelated"' : ""} href="${kept.get(op.url)}"/>`;
  },
  map: (op) => `<image ${place(op)} preserveAspectRatio="none" opacity="${op.alpha}" href="${op.image.toDataURL("image/png")}"/>`,
  lines: (op) => {
    let d = "";
    for (let i = 0; i + 3 < op.lines.length; i += 4) {
      const [a, b, c, e] = op.lines.slice(i, i + 4).map((v, k) => (k % 2 ? op.y + v * op.h : op.x + v * op.w).toFixed(1));
      d += `M${a} ${b}L${c} ${e}`;
    }
    const wide = op.em / 8;
    return `<path d="${d}" fill="none" stroke="#fff" stroke-opacity="0.85" stroke-width="${wide + 2}"/>` +
      `<path d="${d}" fill="none" stroke="${op.colour}" stroke-width="${wide}"/>`;
  },
  frame: (op) => `<rect ${place(op)} fill="none" stroke="#9aa5a8"/>`,
  text: (op) => `<text x="${op.x}" y="${op.y}" font-size="${op.px}" font-weight="${op.weight ?? "normal"}" text-anchor="${op.anchor ?? "start"}">${safe(op.text)}</text>`,
  scale: (op, i) => {
    const stops = op.colours.map((c, k) => `<stop offset="${k / (op.colours.length - 1)}" stop-color="${c}"/>`);
    return `<linearGradient id="scale${i}">${stops.join("")}</linearGradient><rect class="scale" ${place(op)} fill="url(#scale${i})"/>`;
  },
  mark: (op) => `<rect ${place(op)} fill="#fff"/><text x="${op.x + op.em / 2}" y="${op.y + op.em * 1.15}" font-size="${op.em}" font-weight="bold" fill="${WARNING}">${safe(op.text)}</text>`,
  bar: (op) => `<g class="scale-bar" font-weight="bold" font-size="${op.em}">` +
    `<path d="M${op.x - op.em * 0.15} ${op.y}h${op.length + op.em * 0.3}" stroke="#fff" stroke-width="${op.em * 0.52}"/>` +
    `<path d="M${op.x} ${op.y}h${op.length}" stroke="${INK}" stroke-width="${op.em * 0.22}"/>` +
    `<text x="${op.x}" y="${op.y - op.em * 0.5}" stroke="#fff" stroke-width="${op.em * 0.3}" paint-order="stroke">${safe(op.text)}</text></g>`,
};

const place = (op) => `x="${op.x}" y="${op.y}" width="${op.w}" height="${op.h}"`;

// Control characters have no place in XML, and a file name may hold them.
function safe(text) {
  const clean = text.replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
  return clean.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}

function asData(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}
