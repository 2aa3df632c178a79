// The outbox: labels that the database has not confirmed yet.
//
// Every event is written to localStorage before it is sent, is sent to /api/labels again and again
// until the answer names it, and only then forgotten. The server stores an event once however often
// it comes (client + seq are unique), so sending too often is harmless and sending too seldom is not.
// One outbox serves the whole tab: it goes on sending when the page that made the labels is left.
// Notes and tags have a second one of the same kind, so that neither waits for the other.

const OUTBOX_KEY = "cnsapp.outbox.";
const NOTEBOX_KEY = "cnsapp.notebox.";
const MOST_EVENTS = 400; // in one message: the server answers it in well under 250 ms
const MOST_BYTES = 60000; // what browsers let a keepalive request carry while a page goes away
const PATIENCE = 20000; // ms; the server itself gives up waiting for the database after 15 s

function randomId() {
  // crypto.randomUUID is missing on plain http beyond localhost
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function theOutbox() {
  if (!window.__cnsappOutbox1) window.__cnsappOutbox1 = makeOutbox(OUTBOX_KEY);
  return window.__cnsappOutbox1;
}

function theNotebox() {
  if (!window.__cnsappNotebox1) window.__cnsappNotebox1 = makeOutbox(NOTEBOX_KEY);
  return window.__cnsappNotebox1;
}

function makeOutbox(prefix) {
  const box = {
    items: adopt(prefix), // [{project, annotator, event, path, whose}], the oldest first
    key: prefix + randomId(),
    busy: false,
    fails: 0,
    problem: "",
    timer: 0,
    listeners: new Set(),
  };
  save(box);
  window.addEventListener("online", () => flush(box));
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && flush(box));
  window.addEventListener("pagehide", () => sendOff(box));
  return box;
}

// Take over what an earlier page of this browser (reloaded, closed or crashed) could not deliver.
function adopt(prefix) {
  const found = [];
  try {
    for (const key of Object.keys(localStorage).filter((k) => k.startsWith(prefix))) {
      found.push(...JSON.parse(localStorage.getItem(key) || "[]"));
      localStorage.removeItem(key);
    }
  } catch (error) {
    console.warn("cnsapp: unsent labels could not be read", error);
  }
  return found.filter((item) => item && item.event && item.project);
}

function save(box) {
  try {
    if (box.items.length) localStorage.setItem(box.key, JSON.stringify(box.items));
    else localStorage.removeItem(box.key);
  } catch (error) {
    console.warn("cnsapp: unsent labels are kept in memory only", error);
  }
}

// `more`: the path where it is not /api/labels, and `whose` labels the answer may tell of.
function addToOutbox(box, project, annotator, events, more = {}) {
  for (const event of events) box.items.push({ project, annotator, event, ...more });
  save(box);
  tell(box, null);
  flush(box);
}

function tell(box, answer) {
  for (const listener of [...box.listeners]) listener(answer);
}

const nameOf = (event) => `${event.client} ${event.seq}`;

// The next message: as many of the oldest events as belong to one project and one person. Only the
// last message of a page that goes away is bound to what browsers carry then.
function nextBatch(box, most = Infinity) {
  const first = box.items[0];
  const batch = [];
  let bytes = 200;
  for (const item of box.items) {
    if (item.project !== first.project || item.annotator !== first.annotator || item.path !== first.path || item.whose !== first.whose) break;
    if (most < Infinity) bytes += JSON.stringify(item.event).length + 1;
    if (batch.length === MOST_EVENTS || (batch.length && bytes > most)) break;
    batch.push(item);
  }
  return batch;
}

function post(batch, signal) {
  const body = JSON.stringify({
    project_id: batch[0].project,
    annotator: batch[0].annotator,
    ...(batch[0].whose ? { whose: batch[0].whose } : {}),
    events: batch.map((item) => item.event),
  });
  const headers = { "Content-Type": "application/json" };
  const keepalive = body.length < MOST_BYTES + 1000;
  return fetch(batch[0].path || "/api/labels", { method: "POST", headers, body, keepalive, signal, credentials: "same-origin" });
}

async function deliver(batch) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const response = await post(batch, stop.signal);
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    if (answer.permanent) {
      const rejected = batch.map(({ event }) => ({ client: event.client, seq: event.seq, reason: answer.error }));
      return { acked: [], rejected, images: [], counts: null, as_of: 0 };
    }
    throw new Error(answer.error || `The server answered ${response.status}.`);
  } finally {
    clearTimeout(timer);
  }
}

async function flush(box) {
  if (box.busy || !box.items.length) return;
  clearTimeout(box.timer);
  box.busy = true;
  const batch = nextBatch(box);
  let answer = null;
  try {
    answer = await deliver(batch);
    settle(box, batch, answer);
    box.fails = 0;
    box.problem = "";
  } catch (error) {
    box.fails += 1;
    // fetch itself fails with a TypeError when nobody answers
    box.problem = error instanceof TypeError || error.name === "AbortError" ? "" : error.message;
    const wait = Math.min(5000, 250 * 2 ** Math.min(box.fails, 6)) * (0.75 + Math.random() / 2);
    box.timer = setTimeout(() => flush(box), wait);
  } finally {
    box.busy = false;
  }
  if (answer) answer.project = batch[0].project;
  tell(box, answer);
  if (answer) document.dispatchEvent(new CustomEvent("cnsapp:stored", { detail: answer })); // whoever counts on this page
  if (answer) flush(box);
}

function settle(box, batch, answer) {
  const done = new Set([...(answer.acked || []), ...(answer.rejected || [])].map(nameOf));
  const sent = new Set(batch.map((item) => nameOf(item.event)));
  const left = box.items.filter(({ event }) => !(sent.has(nameOf(event)) && done.has(nameOf(event))));
  if (left.length === box.items.length) throw new Error("The server's answer names none of the labels sent.");
  box.items = left;
  save(box);
}

// The page goes away: hand over what fits. Whatever does not arrive is sent by the next page.
function sendOff(box) {
  if (box.items.length) post(nextBatch(box, MOST_BYTES)).catch(() => {});
}

// A question to the server. Throws in words when it does not answer, or with a refusal.
async function askServer(path, asked) {
  const response = await fetch(`${path}?${new URLSearchParams(asked)}`, { credentials: "same-origin" });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server answered ${response.status}.`);
  return answer;
}
