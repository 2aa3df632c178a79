// A map as gray levels becomes colours or contour lines. No drawing on the screen happens here.

const ZERO = 128; // the level of a signed map that speaks neither for nor against
const GRID = 160; // most samples a side for contour lines
const CONTOURS = [0.25, 0.5, 0.75]; // of the strongest value
const FINE = 512; // samples a side to which small maps are enlarged: a threshold then has fine edges
const STRONGEST = 0.8; // opacity where a map is strongest: the tissue stays visible under it

// Returns {w, h, at: Uint8Array} of a picture of gray levels.
async function readLevels(url) {
  const image = await readPicture(url);
  const [w, h] = [image.naturalWidth, image.naturalHeight];
  const times = Math.max(1, Math.ceil(FINE / Math.max(w, h)));
  const canvas = newCanvas(w * times, h * times);
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.drawImage(image, 0, 0, canvas.width, canvas.height);
  const rgba = brush.getImageData(0, 0, canvas.width, canvas.height).data;
  const at = new Uint8Array(canvas.width * canvas.height);
  for (let i = 0; i < at.length; i++) at[i] = rgba[4 * i];
  return { w: canvas.width, h: canvas.height, at };
}

function readPicture(url) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => fail(new Error("no picture"));
    image.src = url;
  });
}

function newCanvas(w, h) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(1, w), Math.max(1, h)];
  return canvas;
}

// How strong a level is, 0 to 1.
function strengthOf(level, signed) {
  return signed ? Math.min(Math.abs(level - ZERO) / 127, 1) : level / 255;
}

// The least strength shown, so that no more than a share of the area is; nothing at 0 ever is.
function cutOf(levels, signed, share) {
  if (share >= 1) return 0;
  const counts = new Float64Array(256); // by strength in 255 steps
  for (const level of levels.at) counts[Math.round(255 * strengthOf(level, signed))] += 1;
  let left = share * levels.at.length;
  let k = 255;
  while (k > 0 && counts[k] === 0) k -= 1;
  left -= counts[k]; // the strongest are shown even where they are more
  while (k > 1 && counts[k - 1] <= left) left -= counts[--k];
  return k / 255;
}

// 256 colours between anchors such as "#1f0c48".
function tableOf(anchors) {
  const parts = anchors.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const x = (level / 255) * (parts.length - 1);
    const [i, share] = [Math.min(Math.floor(x), parts.length - 2), x - Math.min(Math.floor(x), parts.length - 2)];
    return parts[i].map((c, k) => Math.round(c + share * (parts[i + 1][k] - c)));
  });
}

// The map in colours, the more transparent the less it says; below the cut nothing.
function colourMap(levels, signed, anchors, cut) {
  const table = tableOf(anchors);
  const canvas = newCanvas(levels.w, levels.h);
  const brush = canvas.getContext("2d");
  const drawn = brush.createImageData(levels.w, levels.h);
  const of = Array.from({ length: 256 }, (_, level) => {
    const strength = strengthOf(level, signed);
    const shown = strength > 0 && strength >= cut - 1e-9;
    return [...table[level], shown ? Math.round(255 * STRONGEST * Math.sqrt(strength)) : 0];
  });
  for (let i = 0; i < levels.at.length; i++) drawn.data.set(of[levels.at[i]], 4 * i);
  brush.putImageData(drawn, 0, 0);
  return canvas;
}

// Contour lines: [{colour, lines: [x0, y0, x1, y1, …]}], places from 0 to 1 of width and height.
function contoursOf(levels, signed, anchors, cut) {
  const table = tableOf(anchors);
  const wanted = CONTOURS.filter((c) => c > cut);
  if (cut > 0) wanted.unshift(cut);
  const [w, h] = [Math.min(GRID, levels.w), Math.min(GRID, levels.h)];
  const value = (x, y) => levels.at[
    Math.round((y * (levels.h - 1)) / (h - 1 || 1)) * levels.w + Math.round((x * (levels.w - 1)) / (w - 1 || 1))
  ];
  const sides = signed ? [1, -1] : [1];
  return wanted.flatMap((c) => sides.map((side) => {
    const limit = signed ? ZERO + side * 127 * c : 255 * c;
    return { colour: table[Math.round(Math.min(Math.max(limit, 0), 255))], lines: march(value, w, h, limit) };
  })).filter(({ lines }) => lines.length);
}

function march(value, w, h, limit) {
  const lines = [];
  for (let y = 0; y < h - 1; y++) {
    for (let x = 0; x < w - 1; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const crossed = [];
      for (let k = 0; k < 4; k++) {
        const [a, b] = [corners[k], corners[(k + 1) % 4]];
        const [va, vb] = [value(...a) - limit, value(...b) - limit];
        if (va < 0 === vb < 0) continue;
        const t = va / (va - vb);
        crossed.push((a[0] + t * (b[0] - a[0])) / (w - 1), (a[1] + t * (b[1] - a[1])) / (h - 1));
      }
      lines.push(...crossed); // two places make one line, four make two
    }
  }
  return lines;
}

const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const hex = (rgb) => `#${rgb.map((c) => c.toString(16).padStart(2, "0")).join("")}`;
