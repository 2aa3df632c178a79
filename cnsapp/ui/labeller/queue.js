// The queue of the one-by-one view: the browser asks the server for the next images itself, some
// twenty ahead, so that a key never waits.
//
// What is in hand is leased to `holder`: nobody else gets it for some minutes. Every word with the
// server renews that, gives back what is done, and says which images others have labelled since.
// The list lives in `s.images`; `s.pos` is the image on screen, and what lies before it stays.

const HOLD = 20; // images in hand, the one on screen among them
const LOW = 12; // with fewer, more are asked for
const RENEW = 45000; // ms between two words with the server while somebody is there
const IDLE = 600000; // ms without a key or a movement: then others may have the images
const PAST = 30; // images before the reload that are fetched at once; the rest when one goes back
const MEMORY = "cnsapp.queue";

const WHY = {
  spread: ["to spread", "Unlike all that has been labelled: so the labels cover the whole set"],
  uncertain: ["uncertain", "The model is unsure between two classes"],
  random: ["random share", "Drawn at random: figures from these images are not skewed by choosing hard ones"],
  "look-alike": ["looks alike", "Looks like an image of the class"],
  disagree: ["people disagree", "People gave it different classes: your word decides"],
  model: ["the model differs", "The model, without having learnt from this image, calls it otherwise"],
  unsure: ["unsure before", "Somebody was unsure"],
  skipped: ["skipped before", "Somebody skipped it"],
  second: ["second reading", "Somebody has read this image; what they said is not shown"],
  self: ["once more", "You have labelled this image before; what you said is not shown"],
};

// The page names what is asked for; with another wish the list starts afresh.
function fillQueue(s) {
  const sign = JSON.stringify([s.data.project_id, s.data.annotator, s.data.ask]);
  if (s.queue && s.queue.sign === sign) return;
  leaveQueue(s);
  const kept = recallQueue(sign);
  s.queue = {
    sign, holder: randomId(), before: kept.holder, reasons: new Map(kept.ahead), past: kept.past,
    done: new Set(), // labelled, skipped or unsure here: what a label was given to needs no lease
    held: new Set(), // leased, as far as we know
    version: "", more: true, left: Infinity, asking: false, fails: 0, timer: 0, rechosen: 0, heard: Date.now(), answer: null,
  };
  s.images = [];
  s.at = new Map();
  s.pos = 0;
  s.leave = () => leaveQueue(s);
  s.actionPrefix = (ids) => markDone(s, ids);
  s.sourceFor = (ids) => (ids.length === 1 && s.at.has(ids[0]) ? s.images[s.at.get(ids[0])].as_source : "") || "";
  const { signal } = (s.queue.stop = new AbortController());
  window.addEventListener("pagehide", () => leaveQueue(s, true), { signal });
  for (const sign of ["keydown", "pointermove"]) document.addEventListener(sign, () => (s.queue.heard = Date.now()), { signal, passive: true });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && askQueue(s), { signal });
  window.addEventListener("online", () => askQueue(s), { signal });
  askQueue(s);
}

// The images are given back; what is needed to go on after a reload stays in this tab.
function leaveQueue(s, reload = false) {
  const q = s.queue;
  if (!q) return;
  rememberQueue(s);
  const images = [...q.held].filter((id) => !s.ahead.has(id));
  const body = JSON.stringify({ project_id: JSON.parse(q.sign)[0], holder: q.holder, images });
  fetch("/api/queue/release", { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: true, credentials: "same-origin" }).catch(() => {});
  if (reload) return; // if the page stays after all, its next word with the server leases again
  q.stop.abort();
  clearTimeout(q.timer);
  s.queue = null;
}

// A label of the random share says so for ever: its action begins with "random-", and scores that
// are to be honest are taken from such images. The word is agreed with `queue_rules.RANDOM_ACTION`.
function markDone(s, ids) {
  for (const id of ids) s.queue.done.add(id);
  const row = ids.length === 1 && s.at.has(ids[0]) ? s.images[s.at.get(ids[0])] : null;
  return row && row.reason === "random" ? "random-" : "";
}

const inHand = (s) => s.images.slice(s.pos).filter((row) => !s.queue.done.has(row.id));

// Called at every key: asks only when few images are left.
function askForMore(s) {
  const q = s.queue;
  if (!q || q.asking || q.fails) return;
  if (q.past.length && s.pos < 5) return void askQueue(s);
  const n = inHand(s).length;
  // of the last images one holds a share only: asked at each image that is done, not over and over
  if (q.more && n < LOW && n < q.left) askQueue(s);
}

async function askQueue(s, giveBack = []) {
  const q = s.queue;
  if (!q || q.asking) return;
  q.asking = true;
  clearTimeout(q.timer);
  const first = !s.images.length;
  const back = first || s.pos < 5 ? q.past.slice(-PAST) : [];
  const ahead = first ? [...q.reasons.keys()] : [];
  const keep = [...ahead, ...inHand(s).map((row) => row.id)];
  const kept = new Set(keep);
  // what is labelled but not stored yet stays ours: else somebody is handed it in that moment
  const done = [...q.held].filter((id) => !kept.has(id) && !s.ahead.has(id));
  let answer = null;
  try {
    answer = await postQueue({
      project_id: s.data.project_id, annotator: s.data.annotator, ...s.data.ask,
      holder: q.holder, holder_before: q.before, n: Math.max(0, HOLD - keep.length),
      keep, give_back: [...new Set([...done, ...giveBack])], seen: seenIds(s), show: [...back, ...ahead],
    });
    if (s.queue !== q) return;
    q.fails = 0;
    q.problem = "";
  } catch (error) {
    if (s.queue !== q) return;
    q.fails += 1;
    q.problem = error instanceof TypeError || error.name === "AbortError" ? "" : error.message;
  } finally {
    q.asking = false;
  }
  if (answer) takeHanded(s, answer, { first, back, ahead, kept, done: [...done, ...giveBack], asked: HOLD - keep.length });
  const rest = answer && !inHand(s).length ? RENEW / 10 : RENEW;
  const wait = q.fails ? Math.min(5000, 250 * 2 ** Math.min(q.fails, 5)) : rest;
  q.timer = setTimeout(() => wakeQueue(s), wait * (0.8 + Math.random() * 0.4));
  if (!answer) s.paint([]);
}

// Whoever left the tab open and went home holds nothing back.
function wakeQueue(s) {
  const q = s.queue;
  if (!q) return;
  const there = document.visibilityState === "visible" && Date.now() - q.heard < IDLE;
  if (there || q.fails) askQueue(s);
  else q.timer = setTimeout(() => wakeQueue(s), RENEW);
}

// What need not come again: passed by, on its way to the database, or all where labels do not count.
function seenIds(s) {
  const q = s.queue;
  const { strategy, filter } = s.data.ask;
  const all = filter.state !== "unlabelled" || !["smart", "in-order", "random", "look-alikes"].includes(strategy);
  const before = s.images.filter((row, i) => all || (i < s.pos && (s.ahead.has(row.id) || shownLabel(s, row.id).state === "none")));
  return [...new Set([...q.past, ...before.map((row) => row.id)])].slice(-50000);
}

async function postQueue(message) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const response = await fetch("/api/queue/next", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message),
      signal: stop.signal, credentials: "same-origin",
    });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
    return answer;
  } finally {
    clearTimeout(timer);
  }
}

function takeHanded(s, answer, asked) {
  const q = s.queue;
  q.answer = answer;
  q.before = "";
  takeRows(s, [...answer.shown, ...answer.images], answer.as_of);
  tellNote(s, answer.note);
  const gone = new Set(answer.gone);
  const here = s.images[s.pos] && s.images[s.pos].id; // nothing is taken from under somebody's eyes
  const shown = new Map(answer.shown.map((row) => [row.id, row]));
  const rows = s.images.filter((row) => row.id === here || !gone.has(row.id) || q.done.has(row.id));
  const back = asked.back.filter((id) => shown.has(id) && !s.at.has(id)).map((id) => shown.get(id));
  for (const row of back) q.done.add(row.id);
  q.past = q.past.slice(0, q.past.length - asked.back.length);
  const ahead = asked.ahead.filter((id) => shown.has(id) && !gone.has(id));
  const again = ahead.map((id) => ({ ...shown.get(id), reason: q.reasons.get(id) }));
  const listed = new Set([...rows, ...back, ...again].map((row) => row.id));
  const fresh = answer.images.filter((row) => !listed.has(row.id));
  for (const row of answer.images) if (!fresh.includes(row)) q.done.delete(row.id);
  q.reasons = new Map();
  setImages(s, [...back, ...rows, ...again, ...fresh], here);
  if (asked.first) s.pos = firstPlace(s, back.length);
  for (const id of [...asked.done, ...gone]) q.held.delete(id);
  for (const id of [...asked.kept, ...answer.images.map((row) => row.id)]) if (!gone.has(id)) q.held.add(id);
  if (asked.asked > 0) q.more = answer.more;
  q.left = inHand(s).length;
  s.paint([]);
  lookAhead(s);
  rechoose(s, answer, asked.first);
}

function setImages(s, rows, here) {
  s.images = rows;
  s.at = new Map(rows.map((row, i) => [row.id, i]));
  if (s.at.has(here)) s.pos = s.at.get(here);
  else s.pos = Math.min(s.pos, rows.length);
}

// Where to start: behind what a reload caught on its way to the database.
function firstPlace(s, from) {
  const place = s.images.findIndex((row, i) => i >= from && !s.ahead.has(row.id));
  return place < 0 ? s.images.length : place;
}

// The order is another one since (new suggestions, labels from elsewhere): all but the nearest
// images are chosen again.
function rechoose(s, answer, first) {
  const q = s.queue;
  const changed = !first && q.version && answer.version !== q.version;
  if (answer.version) q.version = answer.version;
  const wait = answer.is_old ? 1500 : changed ? 0 : null;
  if (wait === null || Date.now() - q.rechosen < 1000) return;
  q.rechosen = Date.now();
  setTimeout(() => {
    if (s.queue !== q || q.asking) return;
    const far = inHand(s).slice(AHEAD + 1).map((row) => row.id);
    const dropped = new Set(far);
    setImages(s, s.images.filter((row) => !dropped.has(row.id)), s.images[s.pos] && s.images[s.pos].id);
    askQueue(s, far);
  }, wait);
}

// --- after a reload ---

function rememberQueue(s) {
  const q = s.queue;
  if (!s.images.length) return;
  const past = [...q.past, ...s.images.slice(0, s.pos).map((row) => row.id)].slice(-2000);
  const ahead = s.images.slice(s.pos).filter((row) => !q.done.has(row.id)).map((row) => [row.id, row.reason || ""]);
  try {
    sessionStorage.setItem(MEMORY, JSON.stringify({ sign: q.sign, holder: q.holder, past, ahead }));
  } catch (error) {
    console.warn("cnsapp: the place in the queue is not kept", error);
  }
}

function recallQueue(sign) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(MEMORY) || "{}");
    if (kept.sign === sign) return kept;
  } catch (error) {
    console.warn("cnsapp: the place in the queue could not be read", error);
  }
  return { holder: "", past: [], ahead: [] };
}

// --- what stands at the end ---

function endOfQueue(s) {
  const q = s.queue;
  const answer = q && q.answer;
  if (!answer) return { text: q && q.fails ? `The server does not answer. Trying again. ${q.problem || ""}`.trim() : "Fetching images…", steps: [] };
  if (q.fails) return { text: `No image is left in this browser, and the server does not answer. Trying again. ${q.problem || ""}`.trim(), steps: [] };
  if (q.asking && q.more) return { text: "Fetching more images…", steps: [] };
  const { strategy } = s.data.ask;
  const steps = [];
  for (const again of ["skipped", "unsure"]) {
    if (answer[again] && strategy !== again) steps.push([`Show ${again} again (${number(answer[again])})`, again]);
  }
  if (strategy !== "smart") steps.push(["Next: smart", "smart"]);
  return { text: [endWords(s, answer), answer.note].filter(Boolean).join(" "), steps };
}

function endWords(s, answer) {
  const { strategy } = s.data.ask;
  if (answer.with_others) return `${answer.with_others === 1 ? "1 image waits" : `${number(answer.with_others)} images wait`} in other people's queues; what they leave comes back here.`;
  if (s.images.length) return "That was the last image of this queue.";
  const words = {
    disagree: "Nobody disagrees about an image that is not decided yet.",
    model: "The model agrees with every label it was not trained on, or there are no suggestions yet.",
    unsure: "No image is marked unsure.",
    skipped: "No image is skipped.",
    second: "No second reading is asked of you.",
    self: "None of your own images is to be read again.",
    "look-alikes": answer.note ? "" : "No image without a label is left.",
  };
  if (strategy in words) return words[strategy];
  const counts = s.counts || {};
  const all = counts.images && counts.labelled + counts.skipped + counts.unsure >= counts.images;
  return all ? "Every image has been looked at. Train a model next." : "No image matches these filters.";
}

// What is missing for the order that was asked for: told once, and taken away when it is there.
function tellNote(s, note) {
  if (note === s.queueNote) return;
  if (note) s.warn(note);
  else if (s.queueNote && s.ui.notice.textContent.startsWith(s.queueNote)) s.ui.notice.hidden = true;
  s.queueNote = note;
}
