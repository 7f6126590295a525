// Numbers, axes, charts and how they are explored: what report.js draws with. Both files stand in
// one function of template.html. Text enters the page by textContent only.
let data; // of the page, set before anything is drawn
const tip = document.getElementById("tip");
const LEFT = 46, RIGHT = 14, TOP = 22, BOTTOM = 38; // room around a plot for its axes, px
const THUMB = 16; // width of the slider's thumb, px: its centre stands on the budget line
const REACH = 26; // how far from a mark the pointer may be, px

function html(parent, tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function draw(parent, tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

const line = (parent, className, x1, y1, x2, y2) =>
  draw(parent, "line", { class: className, x1, y1, x2, y2 });
const path = (parent, className, points) =>
  draw(parent, "path", { class: className, d: `M${points.map((p) => p.join(" ")).join("L")}` });

// ---- numbers ----------------------------------------------------------------------------------

/** Three significant digits without an exponent, at most `most` decimals (like render.number). */
function short(value, most = 6) {
  const size = value === 0 ? 2 : Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.max(0, Math.min(most, 2 - size)));
}

const percent = (share) => `${short(100 * share, 2)}%`;
const signed = (share) => (share < 0 ? "−" : "+") + percent(Math.abs(share));
const metric = (name) => data.metrics[name] || { label: name, unit: "", scale: 1 };

function shown(name, value) {
  const { unit, scale } = metric(name), larger = data.larger[unit], scaled = value * scale;
  if (name === "error") return percent(value);
  return (scaled >= 1000 && larger ? `${short(scaled / 1000)}\u00a0${larger}`
    : `${short(scaled)}\u00a0${unit}`).trim();
}

/** The smallest number of four digits that is not below value: fit to be typed as a budget. */
function budgetFor(value) {
  const power = 10 ** (3 - Math.floor(Math.log10(value)));
  return Number((Math.ceil(value * power) / power).toPrecision(4));
}

/** [value, text] of round numbers within [low, high]. */
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
    values.push([n * step, (n * step).toFixed(digits).replace("-", "−")]);
  }
  return values;
}

/** [low, high] of values with a margin, never empty. */
function extent(values, margin) {
  const low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * margin;
  return [low - room, high + room];
}

// ---- a chart ----------------------------------------------------------------------------------

/** Draws axes into a box {left, right, top, bottom}; returns functions from values to pixels. */
function axes(svg, box, x, y) {
  const { left, right, top, bottom } = box;
  const px = (value) => left + ((value - x.low) / (x.high - x.low)) * (right - left);
  const py = (value) => bottom - ((value - y.low) / (y.high - y.low)) * (bottom - top);
  for (const [value, text] of ticks(y.low, y.high, y.ticks || (bottom - top) / 32)) {
    line(svg, "tick", left, py(value), right, py(value));
    draw(svg, "text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, text);
  }
  line(svg, "axis", left, bottom, right, bottom);
  for (const [value, text] of x.bare ? [] : ticks(x.low, x.high, (right - left) / 80)) {
    line(svg, "axis", px(value), bottom, px(value), bottom + 4);
    draw(svg, "text", { x: px(value), y: bottom + 16, "text-anchor": "middle" }, text);
  }
  if (x.label) draw(svg, "text", { x: right, y: bottom + 32, "text-anchor": "end" }, x.label);
  draw(svg, "text", { x: 6, y: top - 8 }, y.label);
  return { px, py };
}

/** An svg that paint(svg, width) fills, returning its height; again when the width changes. */
function chart(host, label, paint) {
  const svg = draw(host, "svg", { role: "img", "aria-label": label });
  let width = 0;
  const repaint = () => {
    width = host.clientWidth || width || 600;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${paint(svg, width)}`);
  };
  new ResizeObserver(() => {
    if (host.clientWidth && host.clientWidth !== width) repaint();
  }).observe(host);
  repaint();
  return { svg, repaint };
}

/** The tip beside a mark of an svg, inside the window. */
function place(svg, mark, lines) {
  tip.replaceChildren();
  lines.forEach((text, n) => html(tip, n ? "span" : "b", "", text));
  tip.hidden = false;
  const at = onScreen(svg, mark);
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const above = at.y - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(8, Math.min(at.x + 14, room)) + scrollX}px`;
  tip.style.top = `${(above > 4 ? above : at.y + 14) + scrollY}px`;
}

function onScreen(svg, mark) {
  const box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width || 1;
  return { x: box.left + mark.x * scale, y: box.top + mark.y * scale };
}

/** Details of the nearest mark on hover, tap and arrow keys; pick(mark) on click and Enter. */
function explore(svg, marks, describe, pick = () => {}) {
  let at = -1;
  const hide = () => {
    at = -1;
    tip.hidden = true;
    svg.querySelector(".ring")?.remove();
  };
  const show = (index) => {
    hide();
    at = index;
    const mark = marks()[index];
    draw(svg, "circle", { class: "ring", cx: mark.x, cy: mark.y, r: 8 });
    place(svg, mark, describe(mark));
  };
  const choose = (index) => {
    pick(marks()[index]);
    show(index);
  };
  const nearest = (event) => {
    const far = marks().map((mark) => {
      const { x, y } = onScreen(svg, mark);
      return Math.hypot(x - event.clientX, y - event.clientY);
    });
    const least = Math.min(...far);
    return least < REACH ? far.indexOf(least) : -1;
  };
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", (event) => {
    const index = nearest(event);
    if (index < 0) hide();
    else if (index !== at) show(index);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("click", (event) => {
    const index = nearest(event);
    if (index >= 0) choose(index);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const count = marks().length;
    if (event.key === "Escape") hide();
    if (event.key === "Enter" && at >= 0) choose(at);
    if (!step || !count) return;
    event.preventDefault();
    show(at < 0 ? 0 : (at + step + count) % count);
  });
}
