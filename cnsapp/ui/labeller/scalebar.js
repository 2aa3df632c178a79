// How long the scale bar is: 1, 2 or 5 times a power of ten, of the units that microscopes use.

const BAR_ROOM = 150; // px: the longest bar

// `umPerPx`: micrometres a pixel of the screen. Returns {px, text}, or null when nothing is known.
function scaleBar(umPerPx, room = BAR_ROOM) {
  if (!(umPerPx > 0) || !Number.isFinite(umPerPx)) return null;
  const most = umPerPx * room;
  const power = 10 ** Math.floor(Math.log10(most));
  const um = [5, 2, 1].map((step) => step * power).find((length) => length <= most * 1.0000001);
  const [unit, per] = um >= 10000 ? ["cm", 10000] : um >= 1000 ? ["mm", 1000] : um >= 1 ? ["µm", 1] : ["nm", 0.001];
  return { px: um / umPerPx, text: `${Number((um / per).toPrecision(6))} ${unit}` };
}
