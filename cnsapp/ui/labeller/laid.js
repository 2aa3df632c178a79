// What lies over the picture: a transparent picture of the same image, such as a saliency map. It
// moves with the picture under zoom and pan, since both are placed by `placeOf`.

function layOver(v, url, title = "", strength = 1) {
  if (url && !v.ui.laid) v.ui.canvas.after((v.ui.laid = el("img", "laid", { draggable: "false" })));
  const { laid } = v.ui;
  if (!laid) return;
  laid.hidden = !url;
  if (!url) return;
  if (laid.getAttribute("src") !== url) laid.src = url;
  laid.alt = title;
  laid.style.opacity = String(strength);
  v.redraw();
}

function placeLaid(v) {
  const { laid } = v.ui;
  if (!laid || laid.hidden || !sides(v)) return;
  const { s, x, y } = placeOf(v);
  Object.assign(laid.style, { width: `${v.w * s}px`, height: `${v.h * s}px`, transform: `translate(${x}px, ${y}px)` });
}
