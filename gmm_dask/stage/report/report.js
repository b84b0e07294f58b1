// Connects the controls, the pictures and the animation.
const byId = (id) => document.getElementById(id);
const map = byId("map"), curve = byId("curve"), slider = byId("slider"), play = byId("play");
const across = byId("across"), up = byId("up");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const state = { position: T - 1, only: null, playing: null, view: null, mapScale: null, curveScale: null, pointed: null };

// Passes over a sample come first, and are numbered on from.
const nAll = data.nSample + data.nPasses;
const passName = (pass) => (pass <= data.nSample ? `Pass ${number(pass, 0)} over the sample` : `Pass ${number(pass - data.nSample, 0)} of ${number(data.nPasses, 0)}`);

function frameText(index) {
  const { pass, bound } = data.frames[index];
  const name = pass > nAll ? `Final, after pass ${data.nPasses}` : pass === 1 ? `${passName(pass)}, the start` : passName(pass);
  return bound === null ? name : `${name} · ${data.objective} per row ${number(bound, 6)}`;
}

function draw() {
  if (!map.clientWidth) return; // hidden, as while printing
  const when = moment(state.position), nearest = Math.round(state.position);
  state.mapScale = (state.view.isLine ? drawLine : drawPlane)(map, state.view, when, state.only);
  state.curveScale = drawCurve(curve, data.frames[nearest].pass, state.pointed);
  for (const item of legendItems) item.show(weightAt(when, item.component));
  if (slider) {
    slider.value = nearest;
    slider.setAttribute("aria-valuetext", frameText(nearest));
    byId("state").textContent = frameText(nearest);
  }
}

let asked = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

function stop() {
  state.playing = null;
  if (play) play.textContent = "Play";
}

function start() {
  if (state.position >= T - 1) state.position = 0;
  const each = Math.min(Math.max(9000 / (T - 1), 110), 800);
  state.playing = { begun: null, from: state.position, each };
  play.textContent = "Pause";
  requestAnimationFrame(advance);
}

function advance(now) {
  const playing = state.playing;
  if (!playing) return;
  if (playing.begun === null) playing.begun = now;
  const position = Math.min(playing.from + (now - playing.begun) / playing.each, T - 1);
  state.position = calm.matches ? Math.floor(position) : position;
  if (position >= T - 1) stop();
  draw();
  if (state.playing) requestAnimationFrame(advance);
}

function goTo(index) {
  stop();
  state.position = Math.min(Math.max(index, 0), T - 1);
  redraw();
}

// The list of components: press one to see its rows alone.
function legendItem(component) {
  const item = document.createElement("li"), button = document.createElement("button");
  const parts = ["dot", "bar", "share"].map((name) => {
    const part = document.createElement("span");
    part.className = name;
    button.append(part);
    return part;
  });
  const bar = document.createElement("span");
  parts[1].append(bar);
  parts[0].textContent = component;
  button.type = "button";
  button.style.setProperty("--c", data.palette[component]);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    state.only = state.only === component ? null : component;
    for (const other of legendItems) other.button.setAttribute("aria-pressed", String(other.component === state.only));
    redraw();
  });
  item.append(button);
  byId("legend").append(item);
  const show = (weight) => {
    bar.style.width = `${Math.min(100, 100 * weight)}%`;
    parts[2].textContent = percent(weight);
  };
  return { component, button, show };
}

const legendItems = Array.from({ length: Math.min(K, 64) }, (_, component) => legendItem(component));

function outsideText(view) {
  let outside = 0;
  for (let i = 0; i < M; i++) {
    if (view.row(i).some((value, axis) => value < view.limits[axis][0] || value > view.limits[axis][1])) outside++;
  }
  return outside ? `Rows too far away for this picture: ${number(outside, 0)}.` : "";
}

function choose(best) {
  const pair = across ? [Number(across.value), Number(up.value)] : [0, 0];
  state.view = best && bestView ? bestView : pairView(pair[0], pair[1]);
  if (byId("view-best")) {
    byId("view-best").setAttribute("aria-pressed", String(state.view === bestView));
    byId("view-pair").setAttribute("aria-pressed", String(state.view !== bestView));
  }
  byId("outside").textContent = outsideText(state.view);
  if (byId("about-plane")) {
    byId("about-line").hidden = !state.view.isLine;
    byId("about-plane").hidden = state.view.isLine;
  }
  hide(byId("map-tip"));
  redraw();
}

const hide = (tip) => { tip.hidden = true; };

function showTip(tip, x, y, width, text) {
  tip.textContent = text;
  tip.hidden = false;
  const left = x + 16 + tip.offsetWidth > width ? x - 16 - tip.offsetWidth : x + 16;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
}

function nearestRow(x, y) {
  const scale = state.mapScale;
  let best = null, least = 14 * 14;
  for (let i = 0; i < M; i++) {
    const [vx, vy] = state.view.row(i);
    const dx = scale.x(vx) - x, dy = state.view.isLine ? 0 : scale.y(vy) - y;
    if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = i; }
  }
  return best;
}

function describeRow(row) {
  const view = state.view, frameIndex = Math.round(state.position), values = view.row(row);
  const lines = belongsTo(frameIndex, row).filter((entry) => entry[1] >= 0.005)
    .map(([component, share]) => `Component ${component}: ${percent(share)}`);
  if (view !== bestView) {
    lines.push(`${view.titles[0]}: ${precise(values[0], view.limits[0])}`);
    if (!view.isLine) lines.push(`${view.titles[1]}: ${precise(values[1], view.limits[1])}`);
  }
  return lines.join("\n");
}

map.addEventListener("pointermove", (event) => {
  const box = map.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const row = nearestRow(x, y);
  if (row === null) hide(byId("map-tip"));
  else showTip(byId("map-tip"), x, y, box.width, describeRow(row));
});
map.addEventListener("pointerleave", () => hide(byId("map-tip")));

function describePass(index) {
  const points = state.curveScale.points, [pass, bound] = points[index];
  const lines = [passName(pass), `Per row: ${number(bound, 6)}`];
  if (data.weight) lines.push(`In total: ${number(bound * data.weight, 3)}`);
  if (index > 0 && points[index - 1][0] === pass - 1) {
    lines.push(`Change per row: ${minus((bound - points[index - 1][1]).toExponential(2))}`);
  }
  return lines.join("\n");
}

function point(index) {
  const scale = state.curveScale;
  state.pointed = Math.min(Math.max(index, 0), scale.points.length - 1);
  const [pass, bound] = scale.points[state.pointed];
  showTip(byId("curve-tip"), scale.x(pass), scale.y(bound), curve.getBoundingClientRect().width, describePass(state.pointed));
  redraw();
}

const unpoint = () => { state.pointed = null; hide(byId("curve-tip")); redraw(); };

curve.addEventListener("pointermove", (event) => {
  const x = event.clientX - curve.getBoundingClientRect().left, { points } = state.curveScale;
  if (!points.length) return;
  const distance = (index) => Math.abs(state.curveScale.x(points[index][0]) - x);
  point(points.reduce((best, _, index) => (distance(index) < distance(best) ? index : best), 0));
});
curve.addEventListener("pointerleave", unpoint);
curve.addEventListener("blur", unpoint);
curve.addEventListener("click", () => {
  if (state.pointed === null) return;
  const pass = state.curveScale.points[state.pointed][0];
  goTo(data.frames.reduce((best, frame, i) => (Math.abs(frame.pass - pass) < Math.abs(data.frames[best].pass - pass) ? i : best), 0));
});
curve.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !state.curveScale.points.length) return;
  event.preventDefault();
  point(state.pointed === null ? (step > 0 ? 0 : state.curveScale.points.length - 1) : state.pointed + step);
});

if (slider) {
  slider.addEventListener("input", () => goTo(Number(slider.value)));
  play.addEventListener("click", () => (state.playing ? (stop(), redraw()) : start()));
}
if (across) {
  across.value = data.pair[0];
  up.value = data.pair[1];
  for (const select of [across, up]) select.addEventListener("change", () => choose(false));
}
if (byId("view-best")) {
  byId("view-best").addEventListener("click", () => choose(true));
  byId("view-pair").addEventListener("click", () => choose(false));
}

document.documentElement.classList.add("js");
readTheme();
choose(true);
draw();
new ResizeObserver(redraw).observe(map);
window.addEventListener("resize", redraw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); redraw(); });
