// Drawing the panels on the screen, and looking closely: all of them show the same place.

const CLOSEST = 16; // times

const whole = () => ({ k: 1, x: 0.5, y: 0.5 }); // how much closer, and what is in the middle

function paint(s) {
  for (const one of [s.original, ...s.panels]) {
    const { canvas } = one;
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    if (!w || !s.picture) continue;
    const dots = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * dots)) [canvas.width, canvas.height] = [w, h].map((v) => Math.round(v * dots));
    const brush = canvas.getContext("2d");
    const { x, y, k } = s.view;
    const put = (image, alpha) => {
      const [iw, ih] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
      brush.globalAlpha = alpha;
      brush.drawImage(image, (x - 0.5 / k) * iw, (y - 0.5 / k) * ih, iw / k, ih / k, 0, 0, canvas.width, canvas.height);
      brush.globalAlpha = 1;
    };
    brush.imageSmoothingEnabled = (canvas.width * k) / s.picture.naturalWidth < 4; // single pixels, close up
    put(s.picture, 1);
    brush.imageSmoothingEnabled = true;
    if (one.levels && s.look.style === "contours" && one.contours) {
      const spot = (px, py) => [((px - x) * k + 0.5) * canvas.width, ((py - y) * k + 0.5) * canvas.height];
      for (const line of one.contours) strokeLines(brush, line, spot, 2 * dots, css(line.colour));
    } else if (one.levels && one.coloured) put(one.coloured, s.look.opacity / 100);
    const um = s.data.um_per_px ? (s.data.um_per_px * s.data.width) / (w * k) : null;
    const bar = um ? scaleBar(um, w / 4) : null;
    one.bar.hidden = !bar;
    if (bar) (one.bar.lastChild.style.width = `${bar.px}px`), (one.bar.firstChild.textContent = bar.text);
  }
}

function closer(s, times, px = s.view.x, py = s.view.y) {
  const k = times ? Math.min(Math.max(s.view.k * times, 1), CLOSEST) : 1;
  const share = s.view.k / k; // the place under the pointer stays there
  look(s, { k, x: px + (s.view.x - px) * share, y: py + (s.view.y - py) * share });
}

function look(s, { k, x, y }) {
  const held = (v) => Math.min(Math.max(v, 0.5 / k), 1 - 0.5 / k);
  s.view = { k, x: held(x), y: held(y) };
  for (const one of [s.original, ...s.panels]) one.canvas.classList.toggle("close", k > 1);
  paint(s);
}

function gestures(s, canvas) {
  const at = (e) => {
    const box = canvas.getBoundingClientRect();
    return [s.view.x + ((e.clientX - box.x) / box.width - 0.5) / s.view.k, s.view.y + ((e.clientY - box.y) / box.height - 0.5) / s.view.k];
  };
  let from = null;
  let moved = false;
  canvas.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    (from = [e.clientX, e.clientY, { ...s.view }]), (moved = false);
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!from) return;
    const [dx, dy] = [e.clientX - from[0], e.clientY - from[1]];
    if (Math.hypot(dx, dy) > 4) moved = true;
    const { k, x, y } = from[2];
    if (moved) look(s, { k, x: x - dx / canvas.clientWidth / k, y: y - dy / canvas.clientHeight / k });
  });
  canvas.addEventListener("pointercancel", () => (from = null));
  canvas.addEventListener("pointerup", (e) => {
    if (from && !moved) closer(s, e.shiftKey ? 0.5 : 2, ...at(e));
    from = null;
  });
  canvas.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && s.view.k === 1) return; // the page scrolls, unless somebody already looks closely
    e.preventDefault();
    closer(s, e.deltaY < 0 ? 1.25 : 0.8, ...at(e));
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = 0.1 / s.view.k;
    const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[e.key];
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "+" || e.key === "=") closer(s, 2);
    else if (e.key === "-") closer(s, 0.5);
    else if (e.key === "0") closer(s, 0);
    else if (e.shiftKey && way) look(s, { k: s.view.k, x: s.view.x + way[0], y: s.view.y + way[1] });
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
}
