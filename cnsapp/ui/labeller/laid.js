// What lies over the picture: a transparent picture of the same image, such as a saliency map. It
// moves with the picture under zoom and pan, since both are placed by `placeOf`.

function layOver(v, url, title = "", strength = 1) {
  let { laid } = v.ui;
  if (!url || (laid && laid.getAttribute("src") !== url)) {
    if (laid) laid.remove(); // a new element: never the map before, while this one is on its way
    laid = v.ui.laid = null;
  }
  if (!url) return;
  if (!laid) v.ui.canvas.after((laid = v.ui.laid = el("img", "laid", { draggable: "false", src: url })));
  laid.alt = title;
  laid.style.opacity = String(strength);
  v.redraw();
}

function placeLaid(v) {
  const { laid } = v.ui;
  if (!laid || !sides(v)) return;
  const { s, x, y } = placeOf(v);
  Object.assign(laid.style, { width: `${v.w * s}px`, height: `${v.h * s}px`, transform: `translate(${x}px, ${y}px)` });
}
