// Reads the payload and answers questions about it: positions, ellipses, colours.
const data = JSON.parse(document.getElementById("payload").textContent);

function unpack(text, Type) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Type(bytes.buffer);
}

const K = data.k, M = data.nRows, F = data.names.length, T = data.frames.length, TOP = data.top;
const PACKED = F * (F + 1) / 2;
const IndexType = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[data.indexBytes];
const rowValues = unpack(data.rows, Float32Array);
const weights = unpack(data.weights, Float32Array);
const means = unpack(data.means, Float32Array);
const covariances = unpack(data.covariances, Float32Array);
const viewMeans = unpack(data.viewMeans, Float32Array);
const viewCovariances = unpack(data.viewCovariances, Float32Array);
const viewRows = data.view ? unpack(data.view.rows, Float32Array) : null;
const components = unpack(data.components, IndexType);
const shares = unpack(data.shares, Uint8Array);
const palette = data.palette.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));

// A moment between two frames: the frames on either side, and how far along it is.
function moment(position) {
  const from = Math.min(Math.max(Math.floor(position), 0), T - 1);
  return { from, to: Math.min(from + 1, T - 1), part: position - from };
}

function between(values, stride, offset, when) {
  const a = values[when.from * stride + offset], b = values[when.to * stride + offset];
  return a + (b - a) * when.part;
}

const weightAt = (when, j) => between(weights, K, j, when);

function packedIndex(a, b) {
  const i = Math.min(a, b), j = Math.max(a, b);
  return i * F - i * (i - 1) / 2 + (j - i);
}

// What is drawn across and up, in real units: rows, means and covariances of a component.
const bestView = data.view && {
  isLine: false,
  titles: data.view.titles,
  limits: data.view.limits,
  row: (i) => [viewRows[2 * i], viewRows[2 * i + 1]],
  mean: (when, j) => [0, 1].map((axis) => between(viewMeans, K * 2, j * 2 + axis, when)),
  covariance: (when, j) => [0, 1, 2].map((c) => between(viewCovariances, K * 3, j * 3 + c, when)),
};

function pairView(x, y) {
  const real = (feature, value) => data.centre[feature] + data.scale[feature] * value;
  const covariance = (when, j, a, b) =>
    between(covariances, K * PACKED, j * PACKED + packedIndex(a, b), when) * data.scale[a] * data.scale[b];
  return {
    isLine: x === y,
    titles: [data.names[x], x === y ? "Share of rows per unit" : data.names[y]],
    limits: [data.limits[x], data.limits[y]],
    row: (i) => [real(x, rowValues[i * F + x]), real(y, rowValues[i * F + y])],
    mean: (when, j) => [x, y].map((f) => real(f, between(means, K * F, j * F + f, when))),
    covariance: (when, j) => [covariance(when, j, x, x), covariance(when, j, x, y), covariance(when, j, y, y)],
  };
}

// Responsibilities of a row in one frame, as [component, share] with the largest first.
function belongsTo(frame, row) {
  const start = (frame * M + row) * TOP;
  let sum = 0;
  for (let c = 0; c < TOP; c++) sum += shares[start + c];
  const found = [];
  for (let c = 0; c < TOP; c++) found.push([components[start + c], shares[start + c] / sum]);
  return found;
}

// Light (the square of each colour value) and certainty of every row in one frame; remembered.
const looks = new Map();
function looksOf(frame) {
  if (!looks.has(frame)) {
    const look = new Float32Array(M * 4);
    for (let row = 0; row < M; row++) {
      for (const [component, share] of belongsTo(frame, row)) {
        for (let c = 0; c < 3; c++) look[row * 4 + c] += share * palette[component][c] ** 2;
      }
      look[row * 4 + 3] = shares[(frame * M + row) * TOP] / 255;
    }
    looks.set(frame, look);
  }
  return looks.get(frame);
}

function shareOf(frame, row, component) {
  const start = (frame * M + row) * TOP;
  for (let c = 0; c < TOP; c++) if (components[start + c] === component) return shares[start + c] / 255;
  return 0;
}

// Round tick values that cover low..high, and how to write them.
function ticksOf(low, high, about) {
  const raw = (high - low) / Math.max(about, 1);
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) || raw;
  const values = [];
  for (let i = Math.ceil(low / step); i * step <= high && values.length < 50; i++) values.push(i * step);
  return { values, write: writer(step, Math.max(Math.abs(low), Math.abs(high))) };
}

function writer(step, largest) {
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  if (decimals > 6 || largest >= 1e10) {
    const digits = Math.max(0, Math.floor(Math.log10(largest)) - Math.floor(Math.log10(step)));
    return (v) => (v === 0 ? "0" : minus(v.toExponential(Math.min(digits, 12))));
  }
  return (v) => number(v, decimals);
}

const minus = (text) => text.replace(/-/g, "−");
const number = (v, decimals) =>
  minus((Math.abs(v) < 0.5 * Math.pow(10, -decimals) ? 0 : v).toLocaleString("en-US", {
    minimumFractionDigits: decimals, maximumFractionDigits: decimals,
  }));
const percent = (share) =>
  share > 0 && share < 0.005 ? "< 1 %" : share > 0.995 && share < 1 ? "> 99 %" : `${Math.round(100 * share)} %`;

// A value to as many digits as the width of its axis makes sense of.
function precise(value, limits) {
  return writer((limits[1] - limits[0]) / 1000, Math.max(Math.abs(limits[0]), Math.abs(limits[1])))(value);
}
