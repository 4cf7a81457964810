"use strict";
/* Curves, as inline SVG. */
viva.chart = function (lines, { title, wide = 340, high = 190 }) {
  const [left, right, top, bottom] = [46, 10, 10, 24];
  const points = lines.flatMap((line) => line.points), xs = points.map((p) => p[0]), ys = points.map((p) => p[1]).filter(Number.isFinite);
  if (!ys.length) return null;
  const x1 = Math.max(...xs, 1), low = Math.min(0, ...ys), top1 = Math.max(...ys, low + 1e-9);
  const ticks = (a, b) => {
    const raw = (b - a) / 4 || 1, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999);
    const found = [];
    for (let t = Math.floor(a / step) * step; t <= b + step * 0.999; t += step) found.push(Number(t.toPrecision(10)));
    return found;
  };
  const yt = ticks(low, top1), y0 = yt[0], y1 = Math.max(yt.at(-1), top1);
  const X = (x) => left + ((wide - left - right) * x) / x1, Y = (y) => top + (high - top - bottom) * (1 - (y - y0) / (y1 - y0 || 1));
  const svg = viva.svg("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": title });
  for (const t of yt) viva.add(svg, viva.svg("line", { class: "grid", x1: left, x2: wide - right, y1: Y(t), y2: Y(t) }), viva.svg("text", { x: left - 5, y: Y(t) + 4, "text-anchor": "end" }, String(t)));
  for (const t of ticks(0, x1).filter((v) => v <= x1)) viva.add(svg, viva.svg("text", { x: X(t), y: high - 8, "text-anchor": "middle" }, viva.count(t)));
  lines.forEach((line, i) => {
    const at = line.points.filter((p) => Number.isFinite(p[1])).map((p) => `${X(p[0]).toFixed(1)},${Y(p[1]).toFixed(1)}`);
    viva.add(svg, viva.svg("polyline", { class: `curve s${i % 5}`, points: at.join(" ") }, viva.svg("title", null, line.name)));
  });
  return svg;
};
