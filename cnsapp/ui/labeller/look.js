// Brightness, contrast and channels: how the screen shows pictures. Nothing that is stored, labelled
// or learnt from changes by it. It stays while one goes through the images of this window.

const LOOK_KEY = "cnsapp.look";
const PLAIN = { brightness: 0, contrast: 0, channels: {} }; // -100 to 100; channel index -> on

function readLook() {
  try {
    return { ...PLAIN, ...JSON.parse(sessionStorage.getItem(LOOK_KEY) || "{}") };
  } catch (error) {
    return { ...PLAIN };
  }
}

function keepLook(look) {
  try { sessionStorage.setItem(LOOK_KEY, JSON.stringify(look)); } catch (error) { /* not remembered */ }
}

// From a quarter to four times as bright; the same step up and down takes itself back.
const factor = (value) => 2 ** (value / 50);
const signed = (value) => (value > 0 ? `+${value}` : value < 0 ? `−${-value}` : "0");

function lookFilter(look) {
  if (!look.brightness && !look.contrast) return "";
  return `brightness(${factor(look.brightness).toFixed(4)}) contrast(${factor(look.contrast).toFixed(4)})`;
}

// Which channels to lay over each other here; null: the stored picture, as training sees it.
function channelsOn(v) {
  const offered = (v.about && v.about.channels) || [];
  const on = offered.filter((c) => (c.index in v.look.channels ? v.look.channels[c.index] : c.shown));
  const same = offered.every((c) => on.includes(c) === c.shown);
  return same ? null : on;
}

function buildLook(v) {
  const slider = (name, what) => {
    const input = el("input", "", { type: "range", min: "-100", max: "100", step: "1", "aria-label": what });
    const output = el("output", "");
    input.addEventListener("input", () => changeLook(v, { [name]: Number(input.value) }));
    input.addEventListener("dblclick", () => changeLook(v, { [name]: 0 }));
    return { input, output, root: el("label", "", {}, el("span", "", { text: what }), input, output) };
  };
  v.ui.brightness = slider("brightness", "Brightness");
  v.ui.contrast = slider("contrast", "Contrast");
  v.ui.chips = el("div", "chips", { role: "group", "aria-label": "Channels" });
  v.ui.lookBox = el("div", "lookbox", { role: "group", "aria-label": "Look of the picture", hidden: "" },
    v.ui.brightness.root, v.ui.contrast.root, v.ui.chips,
    el("p", "", { text: "Display only: training sees the stored rule." }),
    button("Reset", "R", "As stored (r)", () => resetLook(v)));
  v.ui.look = button("Look", "", "Brightness, contrast, channels", () => toggleLook(v));
  v.ui.look.setAttribute("aria-expanded", "false");
  return el("div", "lookplace", {}, v.ui.look, v.ui.lookBox);
}

function toggleLook(v, open = v.ui.lookBox.hidden) {
  v.ui.lookBox.hidden = !open;
  v.ui.look.setAttribute("aria-expanded", String(open));
  if (open) v.learn();
}

function changeLook(v, part) {
  v.look = { ...v.look, ...part };
  keepLook(v.look);
  paintLook(v);
  v.changed();
}

function resetLook(v) {
  changeLook(v, { ...PLAIN });
}

function paintLook(v) {
  const { look, ui } = v;
  for (const name of ["brightness", "contrast"]) {
    ui[name].input.value = look[name];
    ui[name].output.textContent = signed(look[name]);
  }
  v.root.style.setProperty("--look", lookFilter(look) || "none");
  const on = channelsOn(v);
  const said = [];
  if (look.brightness) said.push(`brightness ${signed(look.brightness)}`);
  if (look.contrast) said.push(`contrast ${signed(look.contrast)}`);
  if (on) said.push(on.length ? `channels ${on.map((c) => c.index + 1).join(", ")}` : "no channel");
  ui.changed.hidden = !said.length;
  ui.changed.textContent = said.length ? `Display only: ${said.join(", ")}` : "";
  ui.look.classList.toggle("on", said.length > 0);
  paintChips(v);
}

function paintChips(v) {
  const offered = (v.about && v.about.channels) || [];
  const sign = JSON.stringify(offered);
  v.ui.chips.hidden = !offered.length;
  if (v.chipSign !== sign) {
    v.chipSign = sign;
    v.ui.chips.replaceChildren(...offered.map((c) => {
      const dot = el("span", "swatch");
      dot.style.background = c.color;
      const chip = button(c.name, "", `Show or hide ${c.name}`, () => {
        const now = chip.getAttribute("aria-pressed") === "true";
        changeLook(v, { channels: { ...v.look.channels, [c.index]: !now } });
      });
      chip.prepend(dot);
      chip.dataset.channel = c.index;
      return chip;
    }));
  }
  for (const chip of v.ui.chips.children) {
    const c = offered.find((one) => String(one.index) === chip.dataset.channel);
    const pressed = c.index in v.look.channels ? v.look.channels[c.index] : c.shown;
    chip.setAttribute("aria-pressed", String(pressed));
  }
}
