// While one labels: what others say of the same images. Two labels within a second are both kept,
// and both people are told.

const NEWS_EVERY = 4000; // ms
const NEWS_WHILE = 600000; // ms after one's own last label

function listenForNews(s, signal) {
  s.newsFrom = s.data.as_of; // null: from the first answer on
  s.busyAt = 0;
  const timer = setInterval(() => askNews(s), NEWS_EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
}

async function askNews(s) {
  const { project_id: project, annotator, blind, whose } = s.data;
  const there = document.visibilityState === "visible" && Date.now() - s.busyAt < NEWS_WHILE;
  if (!there || !annotator || blind || whose === "mine" || s.asksNews || s.box.fails || s.newsFrom === null) return;
  s.asksNews = true;
  try {
    const { images: changed, as_of: asOf } = await askServer("/api/labels/news", { project, annotator, since: s.newsFrom });
    if (project !== s.data.project_id || annotator !== s.data.annotator) return;
    s.newsFrom = asOf;
    takeNews(s, changed, asOf);
  } catch (error) {
    /* the next time */
  } finally {
    s.asksNews = false;
  }
}

function takeNews(s, changed, asOf) {
  const open = changed.filter(({ id }) => !factsOf(s, id).second);
  for (const { others, ...image } of open) takeLabel(s, image, asOf);
  const ids = open.map(({ id }) => id);
  if (ids.length) s.paint(ids);
  const conflicts = open.filter(({ others }) => others.length);
  if (!conflicts.length) return;
  const [{ name, others: [[who, classId]] }] = conflicts;
  const c = s.classes.get(classId);
  const more = conflicts.length - 1;
  s.warn(`${who} calls ${baseName(name)} ${c ? c.name : "something else"}; you called it otherwise${more ? `, and ${more === 1 ? "1 more image" : `${number(more)} more images`} too` : ""}. Both labels are kept.`);
}
