// An image with saliency maps over it, side by side. How they look is changed here, without a word
// to the server: opacity, threshold, colours, contours, zoom. Maps come as gray levels.
const MOUNTED = new WeakMap();
const LOOKS = { opacity: 85, strongest: 100, rising: "", diverging: "", style: "filled", beside: true };

export default function ({ data, parentElement }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: node("div", "overlay"), look: recallLook(), view: whole(), drawn: "", kept: new Map() };
    s.host.addEventListener("keydown", (e) => {
      if (/^(INPUT|SELECT)$/.test(e.target.tagName)) e.stopPropagation(); // arrows belong to it
    });
    s.seen = new ResizeObserver(() => paint(s));
    parentElement.append(s.host);
    MOUNTED.set(parentElement, s);
  }
  const drawn = JSON.stringify(data);
  if (drawn !== s.drawn) {
    if (s.data?.image_url !== data.image_url) [s.view, s.picture] = [whole(), null];
    s.data = data;
    s.drawn = drawn;
    draw(s);
  }
  return () => {
    s.seen.disconnect();
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function recallLook() {
  try {
    return { ...LOOKS, ...JSON.parse(localStorage.getItem("cnsapp.maps") ?? "{}") };
  } catch {
    return { ...LOOKS };
  }
}

function draw(s) {
  const urls = s.data.panels.map((panel) => panel.levels_url);
  for (const url of [...s.kept.keys()]) if (!urls.includes(url)) s.kept.delete(url);
  s.seen.disconnect();
  s.panels = s.data.panels.map((panel) => ({ panel }));
  s.original = { panel: null };
  const grid = node("div", "panels");
  s.grid = grid;
  for (const one of [s.original, ...s.panels]) grid.append(figureElement(s, one));
  s.said = node("p", "said");
  s.said.setAttribute("role", "status");
  s.host.replaceChildren(controls(s), grid, s.said);
  arrange(s);
  const url = s.data.image_url;
  const mine = (act) => (picture) => s.data.image_url === url && act(picture); // a late one is another image's
  readPicture(url).then(
    mine((picture) => ((s.picture = picture), paint(s))),
    mine(() => ((s.picture = null), say(s, "The picture of this image can not be shown: its file is gone or can not be read.")))
  );
  for (const one of s.panels) if (one.panel.levels_url) load(s, one);
}

async function load(s, one) {
  const url = one.panel.levels_url;
  if (!s.kept.has(url)) s.kept.set(url, readLevels(url));
  try {
    one.levels = await s.kept.get(url);
  } catch {
    s.kept.delete(url);
    one.state.textContent = "The map’s file is gone. Reload the page, and it is made again.";
    return;
  }
  if (!s.panels.includes(one)) return; // drawn anew meanwhile
  colour(s, one);
  paint(s);
  one.canvas.classList.add("ready");
  for (const button of s.saves) button.disabled = false;
}

// panels ---------------------------------------------------------------------------------------
function figureElement(s, one) {
  const { panel } = one;
  const figure = node("figure", panel ? "map-panel" : "original");
  const stack = node("div", "stack");
  stack.style.aspectRatio = `${s.data.width} / ${s.data.height}`;
  stack.style.setProperty("--ratio", s.data.width / s.data.height);
  one.canvas = node("canvas", panel ? "map" : "under");
  one.canvas.setAttribute("role", "img");
  one.canvas.tabIndex = 0;
  const name = panel ? `Saliency map. ${panel.title}, ${panel.method}${panel.mark ? `: ${panel.mark}` : ""}` : `Original: ${s.data.name}`;
  one.canvas.setAttribute("aria-label", name);
  one.bar = node("div", "scalebar");
  one.bar.append(node("span"), node("i"));
  stack.append(one.canvas, one.bar);
  if (panel?.mark) stack.append(node("span", "mark", `▲ ${panel.mark}`));
  if (panel && !panel.levels_url) stack.append((one.state = node("span", "state", panel.note)));
  else if (panel) stack.append((one.state = node("span", "state")));
  gestures(s, one.canvas);
  s.seen.observe(stack);
  const caption = node("figcaption");
  caption.append(node("strong", "", panel ? panel.title : "Original"));
  if (panel) {
    caption.append(node("span", "note", [panel.method, panel.levels_url && panel.note].filter(Boolean).join(" · ")));
    caption.append(legendElement(s, one), linesElement(panel));
  }
  figure.append(stack, caption);
  one.figure = figure;
  return figure;
}

function legendElement(s, one) {
  const { panel } = one;
  const legend = node("div", "legend");
  one.ramp = node("i");
  const ends = node("div", "ends");
  const { low, middle, high } = endsOf(panel);
  ends.append(node("span", "", low), ...(middle ? [node("span", "", middle)] : []), node("span", "", high));
  legend.append(one.ramp, ends, node("span", "note", panel.legend));
  legend.hidden = !panel.levels_url;
  return legend;
}

const endsOf = ({ low, middle, high }) => ({ low, middle, high });

const TONES = { good: "✓", warn: "▲", plain: "·", wait: "…" };

function linesElement(panel) {
  const box = node("div", "honest");
  box.hidden = !panel.lines.length;
  if (panel.curves) box.append(chartElement(panel.curves));
  for (const { tone, text } of panel.lines) {
    const line = node("p", tone);
    line.append(node("b", "", TONES[tone] ?? "·"), node("span", "", text));
    line.firstChild.setAttribute("aria-hidden", "true");
    box.append(line);
  }
  return box;
}

const SVG = "http://www.w3.org/2000/svg";

function chartElement(curves) {
  const box = node("div", "chart");
  const svg = document.createElementNS(SVG, "svg");
  const set = (element, values) => Object.entries(values).forEach(([k, v]) => element.setAttribute(k, v));
  set(svg, { viewBox: "0 0 240 96", role: "img", "aria-label": curves.said });
  const add = (tag, values, text) => {
    const made = document.createElementNS(SVG, tag);
    set(made, values);
    if (text) made.textContent = text;
    svg.append(made);
  };
  const [x0, x1, y0, y1] = [24, 236, 78, 6];
  const at = (v, i) => `${x0 + (x1 - x0) * curves.shares[i]},${y0 + (y1 - y0) * v}`;
  add("path", { class: "axis", d: `M${x0} ${y1}V${y0}H${x1}` });
  for (const [v, y] of [["1", y1 + 5], ["0", y0]]) add("text", { x: x0 - 4, y, "text-anchor": "end" }, v);
  add("text", { x: x0, y: 91 }, "0 %");
  add("text", { x: (x0 + x1) / 2, y: 91, "text-anchor": "middle" }, "of the cells");
  add("text", { x: x1, y: 91, "text-anchor": "end" }, "100 %");
  for (const name of ["random_insertion", "random_deletion", "insertion", "deletion"])
    add("polyline", { class: name, points: curves[name].map(at).join(" ") });
  const key = node("p", "key");
  key.append(node("i", "insertion"), "put in ", node("i", "deletion"), "taken away ", node("i", "random"), curves.chance);
  box.append(svg, key);
  return box;
}

// Original beside, and how many stand in a row.
function arrange(s) {
  s.original.figure.hidden = !s.look.beside;
  const n = s.panels.length + (s.look.beside ? 1 : 0);
  s.grid.dataset.n = n > 4 ? Math.ceil(n / 2) : n;
}

// controls -------------------------------------------------------------------------------------
function controls(s) {
  const bar = node("div", "bar");
  const { panels, colours } = s.data;
  bar.append(
    slider(s, "Map", "opacity", 0, "Opacity of the maps"),
    slider(s, "Strongest", "strongest", 1, "Show only the strongest part of each map, in percent of the area")
  );
  for (const [kind, title] of [["rising", "Colours"], ["diverging", "Signed colours"]]) {
    if (panels.some((panel) => (panel.sign === "signed") === (kind === "diverging"))) {
      bar.append(menu(s, title, kind, colours[kind].map(({ name }) => [name, name])));
    }
  }
  bar.append(menu(s, "As", "style", [["filled", "Areas"], ["contours", "Contours"]]));
  const beside = node("label", "tick");
  const box = node("input");
  Object.assign(box, { type: "checkbox", checked: s.look.beside });
  box.addEventListener("change", () => change(s, { beside: box.checked }));
  beside.append(box, "Original");
  const zoom = node("span", "zoom");
  for (const [text, title, act] of [["−", "Zoom out", () => closer(s, 0.5)], ["+", "Zoom in", () => closer(s, 2)], ["Whole", "Show the whole image", () => closer(s, 0)]])
    zoom.append(button(text, title, act));
  s.readout = node("output", "", "");
  const large = Math.max(s.data.width, s.data.height) > s.data.most;
  const hint = large ? `At display resolution: the image is larger than ${s.data.most} pixels.` : "At the image’s own resolution.";
  s.saves = [["PNG", asPng], ["SVG", asSvg]].map(([kind, make]) =>
    button(`Save ${kind}`, `Save the figure as ${kind}, with title, legend and scale bar. ${hint}`, () => save(s, kind.toLowerCase(), make)));
  for (const one of s.saves) one.disabled = !panels.some((panel) => panel.levels_url);
  const saves = node("span", "saves");
  saves.append(...s.saves);
  bar.append(beside, zoom, saves);
  return bar;
}

function button(text, title, act) {
  const made = node("button", "", text);
  made.type = "button";
  made.title = title;
  made.setAttribute("aria-label", title);
  made.addEventListener("click", act);
  return made;
}

function slider(s, text, name, least, title) {
  const label = node("label", "", text);
  const input = node("input", name);
  Object.assign(input, { type: "range", min: least, max: 100, step: 1, value: s.look[name] });
  input.setAttribute("aria-label", title);
  label.title = title;
  const shown = node("output", "", `${s.look[name]} %`);
  input.addEventListener("input", () => {
    shown.textContent = `${input.value} %`;
    change(s, { [name]: Number(input.value) });
  });
  label.append(input, shown);
  return label;
}

function menu(s, text, name, options) {
  const label = node("label", "", text);
  const select = node("select", name);
  for (const [value, title] of options) select.append(Object.assign(node("option", "", title), { value }));
  select.value = s.look[name];
  if (select.selectedIndex < 0) select.selectedIndex = 0;
  select.addEventListener("change", () => change(s, { [name]: select.value }));
  label.append(select);
  return label;
}

function change(s, wish) {
  Object.assign(s.look, wish);
  try {
    localStorage.setItem("cnsapp.maps", JSON.stringify(s.look));
  } catch {
    // a browser that keeps nothing
  }
  if ("beside" in wish) arrange(s);
  cancelAnimationFrame(s.due);
  s.due = requestAnimationFrame(() => {
    if (!("opacity" in wish)) for (const one of s.panels) if (one.levels) colour(s, one);
    paint(s);
  });
}

function coloursOf(s, panel) {
  const kind = panel.sign === "signed" ? "diverging" : "rising";
  const all = s.data.colours[kind];
  return (all.find(({ name }) => name === s.look[kind]) ?? all[0]).colours;
}

function colour(s, one) {
  const signed = one.panel.sign === "signed";
  const cut = cutOf(one.levels, signed, s.look.strongest / 100);
  const anchors = coloursOf(s, one.panel);
  one.ramp.style.background = `linear-gradient(90deg, ${anchors.join(", ")})`;
  if (s.look.style === "contours") one.contours = contoursOf(one.levels, signed, anchors, cut);
  else one.coloured = colourMap(one.levels, signed, anchors, cut);
}

function sayLook(s) {
  const part = s.look.strongest < 100 ? `The strongest ${s.look.strongest} % of the area` : "All";
  const how = s.look.style === "contours"
    ? `contours ${s.look.strongest < 100 ? "around it, and inside it " : ""}at 25, 50 and 75 % of the strongest value`
    : `weaker places more transparent, opacity ${s.look.opacity} %`;
  return `${part} of each map is shown; ${how}.`;
}

// saving ---------------------------------------------------------------------------------------
async function save(s, kind, make) {
  try {
    const figure = await figureOf(s);
    const blob = await make(figure, `${s.data.name}: ${s.data.model}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${s.data.file}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(s, `Saved ${link.download}.`);
  } catch {
    say(s, "The figure could not be saved: the browser has no room for a picture of this size, or the image’s file is gone. Show fewer maps.");
  }
}

function say(s, text) {
  s.said.textContent = text;
}
