// The viewer by itself: one picture that is not labelled here.

const ALONE = new WeakMap();

export default function viewerAlone({ parentElement, data }) {
  let s = ALONE.get(parentElement);
  if (!s) {
    s = { data };
    ALONE.set(parentElement, s);
    mountAlone(s, parentElement);
  }
  s.data = data;
  s.host.style.height = `min(${data.height}px, 64vh)`;
  const { image } = data;
  if (s.shown !== `${image.id} ${image.version}`) showAlone(s, image);
  return s.unmount;
}

function mountAlone(s, parent) {
  s.frame = el("div", "frame", { role: "img", tabindex: "0" });
  s.viewer = newViewer(s.frame, () => s.data.um_per_px);
  s.host = el("div", "lab alone", {}, s.viewer.root);
  s.host.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || (e.target.type === "range" && /^(Arrow|Home$|End$)/.test(e.key))) return;
    if (!s.viewer.key(e)) return;
    e.preventDefault();
    e.stopPropagation(); // Esc: first to the whole picture, then out of the dialog
  });
  parent.append(s.host);
  s.unmount = () => {
    s.viewer.stop();
    s.host.remove();
    ALONE.delete(parent);
  };
}

function showAlone(s, image) {
  const { frame } = s;
  s.shown = `${image.id} ${image.version}`;
  const img = el("img", "", { alt: image.name, draggable: "false", src: viewUrl(image) });
  frame.setAttribute("aria-label", image.name);
  frame.replaceChildren(img);
  s.viewer.show(image, img);
  img.addEventListener("load", () => s.viewer.redraw());
  img.addEventListener("error", async () => {
    s.viewer.empty();
    frame.replaceChildren(el("p", "empty", { text: await reasonFor(image) }));
  });
}

// The sentence of the server's answer; a broken <img> keeps it to itself.
async function reasonFor(image) {
  try {
    const answer = await fetch(viewUrl(image));
    if (!answer.ok) return (await answer.text()).slice(0, 400);
  } catch (error) { /* the server does not answer */ }
  return `${image.name} cannot be shown now.`;
}
