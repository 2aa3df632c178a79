// The saliency map over the large picture. It is asked for once the picture was looked at for a
// moment, made by the worker, and laid over the picture in the same place under zoom and pan.

const DWELL = 250; // ms
const CHECKED_AFTER = 2500; // ms that a map is looked at before it is held against chance: that costs more
const GIVEN_UP = 5000; // ms that a map nobody looks at any more keeps the next one waiting
const STRENGTH_KEY = "cnsapp.why.strength";
const MAP_KEY = "cnsapp.why.map";
const LONGEST_WAIT = 1500;
const MAKING = "Making the map";

function newMapState() {
  return { on: remembered(MAP_KEY) !== "off", strength: Number(remembered(STRENGTH_KEY) || 70), whose: "said", kept: new Map(), failed: new Map(), doing: "", timer: 0, working: false };
}

function forgetMaps(w) {
  w.map.kept.clear();
  w.map.failed.clear();
}

function buildMapPart(s) {
  const { map, ui } = s.why;
  ui.mapOn = button("Show", ".", "Lay the map over the picture, and off again (.)", () => toggleMap(s));
  ui.mapSaid = button("Prediction", ",", "Evidence for what the model says (,)", () => turnMap(s, "said"));
  ui.mapLabel = button("Its label", ",", "Evidence for what the image is called (,)", () => turnMap(s, "label"));
  ui.slider = el("input", "", { type: "range", min: "10", max: "100", step: "5", value: map.strength, "aria-label": "How strongly the map is laid over" });
  ui.slider.addEventListener("input", () => {
    map.strength = Number(ui.slider.value);
    keepChoice(STRENGTH_KEY, map.strength);
    if (!map.on) toggleMap(s);
    paintMap(s);
  });
  // let go by the mouse, the slider gives the keyboard back; moved by its keys, it keeps it
  ui.slider.addEventListener("pointerdown", () => (map.held = true));
  ui.slider.addEventListener("change", () => map.held && takeKeyboard(s));
  ui.slider.addEventListener("keydown", () => (map.held = false));
  ui.scale = el("div", "scale2", {}, el("span", "", {}), el("i", ""), el("span", "", {}));
  ui.mapText = el("p", "quiet", { role: "status" });
  ui.mapChip = el("span", "chip dispute", { hidden: "" });
  ui.mapAgain = button("Try again", "", "Have the map made once more", () => (map.failed.clear(), mapDue(s)));
  ui.mapAgain.hidden = true;
  const row = el("div", "maprow", {}, ui.mapOn, el("div", "sizes", { role: "group", "aria-label": "Evidence for" }, ui.mapSaid, ui.mapLabel), ui.slider);
  return el("section", "themap", { "aria-label": "Saliency map" }, el("h4", "", { text: "What it looked at" }), row, ui.scale, el("div", "maptext", {}, ui.mapChip, ui.mapText, ui.mapAgain));
}

function keepChoice(key, value) {
  try { localStorage.setItem(key, value); } catch (error) { /* not remembered */ }
}

function toggleMap(s) {
  const { map } = s.why;
  map.on = !map.on;
  keepChoice(MAP_KEY, map.on ? "on" : "off");
  mapDue(s);
}

function turnMap(s, whose) {
  const { map } = s.why;
  map.whose = whose || (map.whose === "said" ? "label" : "said");
  mapDue(s);
}

// The class that evidence is shown for (`null`: what the deployed model says), or why there is none.
function mapClass(s, facts) {
  if (s.why.map.whose === "said") return { id: facts.predicted.id || null };
  const label = shownLabel(s, s.why.shown);
  if (label.state !== "label") return { why: "It has no label to show evidence for." };
  if (!facts.knows.includes(label.class_id)) return { why: `The model does not know ${labelWord(s, label)}: there is no evidence for it to show.` };
  return { id: label.class_id };
}

// What is on the screen now, or null: no facts, switched off, or no such class.
function wantedMap(s) {
  const w = s.why;
  const facts = w.facts.get(w.shown);
  if (!w.map.on || !s.data.review || !s.big || !s.big.open || !facts || facts.error || !s.host.isConnected) return null;
  const { id, why } = mapClass(s, facts);
  return why ? null : { image: w.shown, class: id, key: `${s.data.review.model_id} ${w.shown} ${id}` };
}

function mapDue(s) {
  const { map } = s.why;
  paintMap(s);
  clearTimeout(map.timer);
  const rest = s.why.since + DWELL - Date.now();
  if (mapLacks(s)) map.timer = setTimeout(() => makeMaps(s), Math.max(0, rest));
  else if (mapUnchecked(s)) map.timer = setTimeout(() => makeMaps(s, true), Math.max(0, s.why.since + CHECKED_AFTER - Date.now()));
}

const dwelt = (s, ms) => Date.now() >= s.why.since + ms;

function mapLacks(s) {
  const wanted = wantedMap(s);
  const { map } = s.why;
  return wanted && !map.kept.has(wanted.key) && !map.failed.has(wanted.key) && wanted;
}

function mapUnchecked(s) {
  const wanted = wantedMap(s);
  const kept = wanted && s.why.map.kept.get(wanted.key);
  return kept && !kept.checked && !kept.unknown && wanted;
}

// One map at a time: the worker makes them one by one, and who goes on fast leaves no queue behind.
async function makeMaps(s, checks = false) {
  const { map } = s.why;
  if (map.working) return;
  map.working = true;
  try {
    for (;;) {
      const lacks = dwelt(s, DWELL) && mapLacks(s);
      const one = lacks || (checks && dwelt(s, CHECKED_AFTER) && mapUnchecked(s));
      if (!one) break;
      await makeMap(s, one, !lacks);
    }
  } finally {
    map.working = false;
    map.doing = "";
  }
  if (s.big && s.big.open) mapDue(s);
}

async function makeMap(s, wanted, checks) {
  const { map } = s.why;
  const { model_id: model } = s.data.review;
  const asked = { model, image: wanted.image, class: wanted.class, annotator: s.data.annotator || "", checks };
  const isShown = () => (wantedMap(s) || {}).key === wanted.key;
  let job = null, left = 0;
  for (let wait = 150; ; wait = Math.min(LONGEST_WAIT, wait * 1.4)) {
    const { status, answer } = await postJson("/api/review/map", { ...asked, ...(job ? { job } : {}) }).catch(() => ({ status: 0, answer: {} }));
    // its checks are measured once: another job would mean that the first one left them open
    const measuring = checks && status === 200 && !answer.checked && answer.job && (!job || job === answer.job);
    const going = status === 202 || measuring;
    if (status === 200 && !going) return void (map.kept.set(wanted.key, { ...answer, unknown: checks && !answer.checked }), paintMap(s));
    if (!going && checks) return void (map.kept.has(wanted.key) && (map.kept.get(wanted.key).unknown = true));
    if (!going) return void (map.failed.set(wanted.key, answer.error || "The server does not answer."), paintMap(s));
    job = answer.job;
    map.doing = answer.doing || "";
    paintMap(s);
    if (isShown()) left = 0;
    else left = left || Date.now();
    if (left && (checks || Date.now() - left > GIVEN_UP)) return;
    await new Promise((done) => setTimeout(done, wait));
  }
}

function leaveMaps(s) {
  if (s.why) clearTimeout(s.why.map.timer), clearTimeout(s.why.timer);
}

function paintMap(s) {
  const { map, ui, facts: all, shown } = s.why;
  const facts = all.get(shown);
  const told = facts && !facts.error;
  const wanted = wantedMap(s);
  const kept = wanted && map.kept.get(wanted.key);
  const failed = wanted && map.failed.get(wanted.key);
  ui.mapOn.setAttribute("aria-pressed", String(map.on));
  setText(ui.mapOn.firstChild, map.on ? "Hide" : "Show");
  ui.mapSaid.setAttribute("aria-pressed", String(map.whose === "said"));
  ui.mapLabel.setAttribute("aria-pressed", String(map.whose === "label"));
  ui.scale.classList.toggle("off", !kept || kept.empty);
  ui.mapAgain.hidden = !failed;
  ui.mapChip.hidden = !kept || !(kept.no_better || kept.draws_image);
  s.bigViewer.lay(kept ? kept.url : null, kept ? `Saliency map: evidence for ${kept.class}` : "", map.strength / 100);
  if (kept) paintScaleOf(ui, kept);
  if (kept && !ui.mapChip.hidden) {
    setText(ui.mapChip, kept.no_better ? "no better than random" : "draws the image, not the model");
    ui.mapChip.title = kept.verdict;
  }
  let text = "";
  if (!map.on) text = "The map is off.";
  else if (told && !wanted) text = mapClass(s, facts).why || "";
  else if (failed) text = `The map could not be made. ${failed}`;
  else if (kept) text = kept.notes[0] || `Evidence for ${kept.class}. It shows where, not why.`;
  else if (wanted) text = map.working ? doingWords(map.doing) : "";
  setText(ui.mapText, text);
  ui.mapText.title = kept ? [...kept.notes, kept.verdict].filter(Boolean).join(" ") : text;
}

function doingWords(doing) {
  return !doing || doing === MAKING ? `${MAKING}…` : `${MAKING}. ${doing}…`;
}

function paintScaleOf(ui, { legend }) {
  const [low, bar, high] = ui.scale.children;
  setText(low, legend.low);
  setText(high, legend.high);
  low.title = legend.low;
  high.title = legend.high;
  if (legend.colours) bar.style.background = `linear-gradient(to right, ${legend.colours.join(", ")})`;
}
