// Draws on canvases: sharp at any pixel ratio, in the colours of the page's theme.
const FONT = '13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, "Liberation Sans", sans-serif';
const BOLD = `bold ${FONT}`;

let theme = {};
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["card", "ink", "muted", "grid", "line", "accent", "bar"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

function surface(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.font = FONT;
  return { ctx, width, height };
}

const rgba = (colour, alpha) => `rgba(${colour[0] | 0},${colour[1] | 0},${colour[2] | 0},${alpha})`;

function fitted(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && ctx.measureText(`${text.slice(0, end)}…`).width > room) end--;
  return `${text.slice(0, end)}…`;
}

// Grid, ticks and titles; returns how to get from values to pixels.
function frame(ctx, width, height, limits, titles, ticks) {
  ctx.font = FONT;
  const up = ticks.up || ticksOf(limits[1][0], limits[1][1], Math.max(4, height / 50));
  const labels = up.values.map(up.write);
  const widest = Math.max(0, ...labels.map((label) => ctx.measureText(label).width));
  const box = { left: Math.ceil(widest) + 34, right: width - 12, top: 10, bottom: height - 44 };
  const across = ticks.across || ticksOf(limits[0][0], limits[0][1], Math.max(2, (box.right - box.left) / 95));
  const sx = (box.right - box.left) / (limits[0][1] - limits[0][0]);
  const sy = (box.bottom - box.top) / (limits[1][1] - limits[1][0]);
  const x = (v) => box.left + (v - limits[0][0]) * sx;
  const y = (v) => box.bottom - (v - limits[1][0]) * sy;
  ctx.strokeStyle = theme.grid;
  ctx.fillStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.textAlign = "center"; ctx.textBaseline = "top";
  for (const v of across.values) {
    const at = Math.round(x(v)) + 0.5;
    ctx.moveTo(at, box.top); ctx.lineTo(at, box.bottom);
    const label = across.write(v), half = ctx.measureText(label).width / 2;
    if (at - half > box.left - 30 && at + half < width) ctx.fillText(label, at, box.bottom + 7);
  }
  ctx.textAlign = "right"; ctx.textBaseline = "middle";
  up.values.forEach((v, i) => {
    const at = Math.round(y(v)) + 0.5;
    ctx.moveTo(box.left, at); ctx.lineTo(box.right, at);
    ctx.fillText(labels[i], box.left - 7, at);
  });
  ctx.stroke();
  ctx.textAlign = "center"; ctx.textBaseline = "bottom";
  ctx.fillText(fitted(ctx, titles[0], box.right - box.left), (box.left + box.right) / 2, height - 3);
  ctx.save();
  ctx.translate(14, (box.top + box.bottom) / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textBaseline = "middle";
  ctx.fillText(fitted(ctx, titles[1], box.bottom - box.top), 0, 0);
  ctx.restore();
  return { box, x, y, sx, sy };
}

function clipTo(ctx, box) {
  ctx.beginPath();
  ctx.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  ctx.clip();
}

// How one row looks at a moment: its mixed colour, whether it has a ring, how solid it is.
function lookAt(when, row, only) {
  const a = looksOf(when.from), b = looksOf(when.to), at = row * 4;
  const mix = (c) => a[at + c] + (b[at + c] - a[at + c]) * when.part;
  let solid = 1;
  if (only !== null) {
    const s = shareOf(when.from, row, only), e = shareOf(when.to, row, only);
    solid = 0.12 + 0.88 * (s + (e - s) * when.part);
  }
  return { colour: [0, 1, 2].map((c) => Math.sqrt(mix(c))), ring: K > 1 && mix(3) < data.certain, solid };
}

function drawRows(ctx, scale, view, when, only) {
  const radius = M <= 300 ? 4 : M <= 1000 ? 3.2 : 2.6;
  ctx.lineWidth = radius / 4;
  for (let i = 0; i < M; i++) {
    const [vx, vy] = view.row(i);
    const look = lookAt(when, i, only);
    ctx.beginPath();
    ctx.arc(scale.x(vx), scale.y(vy), radius, 0, 2 * Math.PI);
    ctx.fillStyle = rgba(look.colour, 0.88 * look.solid);
    ctx.fill();
    if (look.ring) {
      ctx.globalAlpha = 0.75 * look.solid;
      ctx.strokeStyle = theme.ink;
      ctx.stroke();
      ctx.globalAlpha = 1;
    }
  }
}

// Half axes in pixels and angle of the 1-sigma ellipse of a covariance [xx, xy, yy].
function ellipse(cov, scale) {
  const xx = cov[0] * scale.sx * scale.sx, xy = -cov[1] * scale.sx * scale.sy, yy = cov[2] * scale.sy * scale.sy;
  const middle = (xx + yy) / 2, apart = Math.hypot((xx - yy) / 2, xy);
  return {
    long: Math.sqrt(Math.max(middle + apart, 0)), short: Math.sqrt(Math.max(middle - apart, 0)),
    angle: 0.5 * Math.atan2(2 * xy, xx - yy),
  };
}

function drawEllipses(ctx, scale, view, when, only) {
  for (let j = 0; j < K; j++) {
    const weight = weightAt(when, j);
    if (!(weight > 0)) continue;
    const [mx, my] = view.mean(when, j), cx = scale.x(mx), cy = scale.y(my);
    const shape = ellipse(view.covariance(when, j), scale);
    const strength = only === null || only === j ? 1 : 0.25;
    for (const [sigma, fill, line] of [[2, 0.06, 1.5], [1, 0.13, 2.5]]) {
      ctx.beginPath();
      ctx.ellipse(cx, cy, sigma * shape.long, sigma * shape.short, shape.angle, 0, 2 * Math.PI);
      ctx.fillStyle = rgba(palette[j], fill * strength);
      ctx.fill();
      ctx.strokeStyle = rgba(palette[j], strength);
      ctx.lineWidth = line;
      ctx.stroke();
    }
  }
}

function drawNumber(ctx, x, y, j, only) {
  const text = String(j);
  ctx.font = BOLD;
  const radius = Math.max(11, ctx.measureText(text).width / 2 + 5);
  ctx.globalAlpha = only === null || only === j ? 1 : 0.3;
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = theme.card;
  ctx.fill();
  ctx.strokeStyle = rgba(palette[j], 1);
  ctx.lineWidth = 2.5;
  ctx.stroke();
  ctx.fillStyle = theme.ink;
  ctx.textAlign = "center"; ctx.textBaseline = "middle";
  ctx.fillText(text, x, y + 0.5);
  ctx.globalAlpha = 1;
  ctx.font = FONT;
}

function drawPlane(canvas, view, when, only) {
  const { ctx, width, height } = surface(canvas);
  const scale = frame(ctx, width, height, view.limits, view.titles, {});
  ctx.save();
  clipTo(ctx, scale.box);
  drawRows(ctx, scale, view, when, only);
  drawEllipses(ctx, scale, view, when, only);
  for (let j = 0; j < K && K <= 40; j++) {
    if (!(weightAt(when, j) > 0)) continue;
    const [mx, my] = view.mean(when, j);
    drawNumber(ctx, scale.x(mx), scale.y(my), j, only);
  }
  ctx.restore();
  return scale;
}

const density = (value, mean, variance, weight) =>
  weight * Math.exp(-0.5 * (value - mean) * (value - mean) / variance) / Math.sqrt(2 * Math.PI * variance);

// Share of rows per unit in 40 equal bars.
function histogram(view) {
  const [low, high] = view.limits[0], bars = new Array(40).fill(0), width = (high - low) / bars.length;
  for (let i = 0; i < M; i++) {
    const bar = Math.floor((view.row(i)[0] - low) / width);
    if (bar >= 0 && bar < bars.length) bars[bar] += 1 / (M * width);
  }
  return { bars, width };
}

// Highest point of the curves in any frame, so that the axis stands still while they move.
function peakOf(view) {
  let peak = Math.max(1e-300, ...histogram(view).bars);
  for (let t = 0; t < T; t++) {
    const when = moment(t);
    for (let j = 0; j < K; j++) {
      const mean = view.mean(when, j)[0];
      if (mean < view.limits[0][0] || mean > view.limits[0][1]) continue;
      peak = Math.max(peak, density(mean, mean, view.covariance(when, j)[0], weightAt(when, j)));
    }
  }
  return peak;
}

// One feature: bars of rows, curves of components, rows as strokes below.
function drawLine(canvas, view, when, only) {
  const { ctx, width, height } = surface(canvas);
  view.peak = view.peak || peakOf(view);
  const limits = [view.limits[0], [-0.09 * view.peak, 1.12 * view.peak]];
  const up = ticksOf(0, limits[1][1], Math.max(4, height / 50));
  const scale = frame(ctx, width, height, limits, view.titles, { up });
  const steps = Math.ceil(scale.box.right - scale.box.left), total = new Float64Array(steps + 1);
  const valueAt = (i) => limits[0][0] + (i / steps) * (limits[0][1] - limits[0][0]);
  ctx.save();
  clipTo(ctx, scale.box);
  const { bars, width: barWidth } = histogram(view);
  ctx.fillStyle = theme.bar;
  bars.forEach((bar, i) => {
    const left = scale.x(limits[0][0] + i * barWidth);
    ctx.fillRect(left, scale.y(bar), barWidth * scale.sx - 1, scale.y(0) - scale.y(bar));
  });
  for (let j = 0; j < K; j++) {
    const mean = view.mean(when, j)[0], variance = view.covariance(when, j)[0], weight = weightAt(when, j);
    const strength = only === null || only === j ? 1 : 0.15;
    ctx.beginPath();
    for (let i = 0; i <= steps; i++) {
      const value = density(valueAt(i), mean, variance, weight);
      total[i] += value;
      ctx.lineTo(scale.box.left + i, scale.y(value));
    }
    ctx.strokeStyle = rgba(palette[j], strength);
    ctx.lineWidth = 2.5;
    ctx.stroke();
    ctx.lineTo(scale.box.right, scale.y(0));
    ctx.lineTo(scale.box.left, scale.y(0));
    ctx.fillStyle = rgba(palette[j], 0.14 * strength);
    ctx.fill();
  }
  ctx.beginPath();
  total.forEach((value, i) => ctx.lineTo(scale.box.left + i, scale.y(value)));
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1.3;
  ctx.setLineDash([6, 4]);
  ctx.stroke();
  ctx.setLineDash([]);
  for (let i = 0; i < M; i++) {
    const look = lookAt(when, i, only), at = scale.x(view.row(i)[0]);
    ctx.strokeStyle = rgba(look.colour, 0.8 * look.solid);
    ctx.beginPath();
    ctx.moveTo(at, scale.y(0) + 6); ctx.lineTo(at, scale.box.bottom - 4);
    ctx.stroke();
  }
  for (let j = 0; j < K && K <= 40; j++) {
    const weight = weightAt(when, j), mean = view.mean(when, j)[0];
    if (weight > 0) {
      const top = density(mean, mean, view.covariance(when, j)[0], weight);
      drawNumber(ctx, scale.x(mean), scale.y(top), j, only);
    }
  }
  ctx.restore();
  return scale;
}

// The curve of the objective; `current` is the pass to mark, `pointed` an index to stress.
function drawCurve(canvas, current, pointed) {
  if (!canvas.clientWidth) return { points: [] };
  const { ctx, width, height } = surface(canvas);
  const points = data.curve.filter((point) => point[1] !== null);
  const last = Math.max(data.nSample + data.nPasses, 1);
  const ends = points.map((point) => point[1]);
  let low = Math.min(...ends), high = Math.max(...ends);
  if (!points.length) { low = 0; high = 1; }
  const margin = 0.08 * (high - low) || Math.max(Math.abs(high), 1) * 0.01;
  const limits = [last === 1 ? [0, 2] : [1 - 0.02 * last, last + 0.02 * last], [low - margin, high + margin]];
  const across = ticksOf(limits[0][0], limits[0][1], Math.max(2, width / 90));
  across.values = [...new Set(across.values.map(Math.round))].filter((v) => v >= 1 && v <= last);
  across.write = (v) => number(v, 0);
  const scale = frame(ctx, width, height, limits, [data.nSample ? `Pass: ${number(data.nSample, 0)} over the sample, then over all rows` : "Pass over the data", `${data.objective[0].toUpperCase()}${data.objective.slice(1)} per row`], { across });
  ctx.beginPath();
  for (const [pass, bound] of points) ctx.lineTo(scale.x(pass), scale.y(bound));
  ctx.strokeStyle = theme.accent;
  ctx.lineWidth = 2.2;
  ctx.lineJoin = "round";
  ctx.stroke();
  const disc = (point, radius, fill) => {
    ctx.beginPath();
    ctx.arc(scale.x(point[0]), scale.y(point[1]), radius, 0, 2 * Math.PI);
    ctx.fillStyle = fill;
    ctx.fill();
    ctx.strokeStyle = theme.accent;
    ctx.stroke();
  };
  if (data.nSample) { // where the passes over all rows begin
    const border = scale.x(data.nSample + 0.5);
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(border, scale.box.top);
    ctx.lineTo(border, scale.box.bottom);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.lineWidth = 2.2;
  }
  if (points.length <= 60) for (const point of points) disc(point, 2.5, theme.accent);
  const marked = points.find((point) => point[0] >= current) || points[points.length - 1];
  if (marked) disc(marked, 6, theme.card);
  if (pointed !== null && points[pointed]) disc(points[pointed], 5, theme.ink);
  return { ...scale, points };
}
