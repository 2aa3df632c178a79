// An image with saliency maps over it. The slider works here, without a word to the server.
const MOUNTED = new WeakMap();
const START = 85;

export default function ({ data, parentElement }) {
  let s = MOUNTED.get(parentElement);
  if (!s) {
    s = { host: node("div", "overlay"), opacity: recall("cnsapp.opacity", START), drawn: "" };
    parentElement.append(s.host);
    MOUNTED.set(parentElement, s);
  }
  s.data = data;
  const drawn = JSON.stringify(data);
  if (drawn !== s.drawn) draw(s), (s.drawn = drawn);
  return () => {
    s.host.remove();
    MOUNTED.delete(parentElement);
  };
}

function draw(s) {
  const { data } = s;
  const panels = node("div", "panels");
  panels.classList.toggle("two", data.panels.length > 1);
  data.panels.forEach((panel) => panels.append(panelOf(s, panel)));
  s.host.replaceChildren(panels, controls(s));
  paint(s);
}

function panelOf(s, panel) {
  const figure = node("figure");
  const stack = node("div", "stack");
  const { width, height } = s.data;
  stack.style.aspectRatio = `${width} / ${height}`;
  stack.style.setProperty("--ratio", width / height);
  stack.append(picture(s.data.image_url, s.data.name, "under"));
  if (panel.map_url) stack.append(picture(panel.map_url, `Saliency map: ${panel.title}`, "map"));
  const caption = node("figcaption");
  caption.append(node("strong", "", panel.title));
  if (panel.note) caption.append(node("span", "note", panel.note));
  figure.append(stack, caption);
  return figure;
}

function picture(url, alt, className) {
  const made = node("img", className);
  made.alt = alt;
  made.decoding = "async";
  made.draggable = false;
  made.src = url;
  return made;
}

function controls(s) {
  const bar = node("div", "bar");
  const ready = s.data.panels.some((panel) => panel.map_url);
  const label = node("label", "", "Map");
  const slider = node("input");
  Object.assign(slider, { type: "range", min: 0, max: 100, step: 1, value: s.opacity, disabled: !ready });
  slider.setAttribute("aria-label", "Opacity of the map");
  slider.addEventListener("input", () => {
    s.opacity = Number(slider.value);
    keep("cnsapp.opacity", s.opacity);
    paint(s);
  });
  s.readout = node("output", "");
  label.append(slider, s.readout);
  const scale = node("span", "scale");
  scale.append(node("span", "", "little"), node("i"), node("span", "", "much evidence"));
  const save = node("button", "save", "Download PNG");
  save.type = "button";
  save.disabled = !ready;
  save.addEventListener("click", () => download(s));
  bar.append(label, scale, save);
  return bar;
}

function paint(s) {
  s.host.style.setProperty("--opacity", s.opacity / 100);
  if (s.readout) s.readout.textContent = `${s.opacity} %`;
}

async function download(s) {
  const stacks = [...s.host.querySelectorAll(".stack")];
  const under = stacks[0].querySelector(".under");
  await under.decode();
  const [w, h, gap] = [under.naturalWidth, under.naturalHeight, 12];
  const canvas = document.createElement("canvas");
  canvas.width = stacks.length * w + (stacks.length - 1) * gap;
  canvas.height = h;
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, canvas.width, h);
  for (const [i, stack] of stacks.entries()) {
    const map = stack.querySelector(".map");
    brush.globalAlpha = 1;
    brush.drawImage(under, i * (w + gap), 0, w, h);
    if (!map) continue;
    await map.decode();
    brush.globalAlpha = s.opacity / 100;
    brush.drawImage(map, i * (w + gap), 0, w, h);
  }
  const link = document.createElement("a");
  link.href = canvas.toDataURL("image/png");
  link.download = `${s.data.name.split("/").pop().replace(/\.[^.]*$/, "")}-map.png`;
  link.click();
}
