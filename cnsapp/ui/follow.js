// Draws nothing: tells its part of the page that labels of a project were given on this page and
// stored, once the hand that labels rests, or after a while.
const FOLLOWING = new WeakMap();
const QUIET = 700; // ms without a stored label
const LATEST = 4000; // ms that news may wait while labels keep coming

export default function ({ data, parentElement, setTriggerValue }) {
  let s = FOLLOWING.get(parentElement);
  if (!s) {
    s = { due: 0, since: 0 };
    s.heard = (e) => hear(s, e.detail);
    document.addEventListener("cnsapp:stored", s.heard);
    FOLLOWING.set(parentElement, s);
  }
  s.project = data.project;
  s.tell = () => setTriggerValue("stored", Date.now());
  return () => {
    clearTimeout(s.due);
    document.removeEventListener("cnsapp:stored", s.heard);
    FOLLOWING.delete(parentElement);
  };
}

function hear(s, answer) {
  if (answer.project !== s.project || !(answer.images || []).length) return;
  const now = Date.now();
  s.since = s.since || now;
  clearTimeout(s.due);
  s.due = setTimeout(() => ((s.since = 0), s.tell()), Math.max(0, Math.min(QUIET, s.since + LATEST - now)));
}
