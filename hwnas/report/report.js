// Draws the report from the JSON in #data: panels, held-out networks, training.

// ---- predicted against measured ---------------------------------------------------------------

/** Held-out networks [id, predicted, a, b] of a target, in a unit. */
function heldout(host, points, what, unit) {
  const rows = points.map(([id, predicted, a, b]) => {
    const measured = (a + b) / 2;
    return { id, predicted, a, b, measured, gap: predicted / measured - 1 };
  });
  let marks = [];
  const label = `Predicted and measured ${what} of ${rows.length} held-out networks`;
  const view = chart(host, label, (svg, width) => {
    const high = width < 500 ? 130 : 190; // of the upper panel
    marks = paintHeldout(svg, rows, { right: width - RIGHT, middle: TOP + high }, unit);
    return TOP + high + 122 + BOTTOM;
  });
  explore(view.svg, () => marks, ({ row }) => [
    `network ${row.id}`,
    `predicted ${short(row.predicted)} ${unit}`,
    `measured ${short(row.a)} and ${short(row.b)} ${unit}`,
    `gap ${signed(row.gap)}`,
  ]);
}

function paintHeldout(svg, rows, { right, middle }, unit) {
  const measured = rows.map((row) => row.measured);
  const [low, high] = extent(measured.flatMap((v) => [0.95 * v, 1.05 * v])
    .concat(rows.map((row) => row.predicted)), 0.02);
  const repeat = (row) => 50 * Math.abs(row.a - row.b) / row.measured; // half their distance, %
  const span = Math.max(7, ...rows.map((row) => 1.05 * (Math.abs(100 * row.gap) + repeat(row))));
  const top = axes(svg, { left: LEFT, right, top: TOP, bottom: middle },
    { low, high, bare: true }, { low, high, label: `predicted, ${unit}` });
  const [first, last] = extent(measured, 0.01);
  const corner = (value, share) => [top.px(value), top.py(value * share)];
  path(svg, "band", [corner(first, 0.95), corner(last, 0.95), corner(last, 1.05),
    corner(first, 1.05)]);
  path(svg, "limit", [corner(first, 1), corner(last, 1)]);
  const { px, py } = axes(svg, { left: LEFT, right, top: middle + 32, bottom: middle + 122 },
    { low, high, label: `measured, ${unit}` }, { low: -span, high: span, label: "gap, %", ticks: 4 });
  draw(svg, "rect", { class: "band", x: LEFT, y: py(5), width: right - LEFT,
    height: py(-5) - py(5) });
  line(svg, "limit", LEFT, py(0), right, py(0));
  return rows.flatMap((row) => {
    const x = px(row.measured), y = py(100 * row.gap), above = top.py(row.predicted);
    line(svg, "repeat", x, py(100 * row.gap - repeat(row)), x, py(100 * row.gap + repeat(row)));
    draw(svg, "circle", { class: "gap", cx: x, cy: y, r: 2.4 });
    draw(svg, "circle", { class: "heldout", cx: x, cy: above, r: 3 });
    return [{ row, x, y: above }, { row, x, y }];
  }).sort((a, b) => a.x - b.x);
}

/** Error and noise floor of every table, with their intervals. */
function errors(host) {
  const rows = data.targets.filter((t) => t.table && t.table.error && t.table.noise);
  if (!rows.length) return host.remove();
  return chart(host, "Error of each table beside the noise floor of its target", (svg, width) => {
    const narrow = width < 620, left = narrow ? 4 : 270, each = narrow ? 62 : 46;
    const most = Math.max(...rows.flatMap((t) => [t.table.error.high, t.table.noise.high])) || 0.01;
    const right = width - 150, bottom = rows.length * each + 10;
    const px = (share) => left + (share / most) * (right - left);
    for (const [value, text] of ticks(0, 100 * most, (right - left) / 90)) {
      line(svg, "tick", px(value / 100), 4, px(value / 100), bottom);
      draw(svg, "text", { x: px(value / 100), y: bottom + 14, "text-anchor": "middle" }, text);
    }
    draw(svg, "text", { x: right, y: bottom + 30, "text-anchor": "end" }, "mean gap, %");
    rows.forEach((target, n) => {
      const y = n * each + (narrow ? 24 : 8);
      draw(svg, "text", narrow ? { class: "name", x: 0, y: y - 6 }
        : { class: "name", x: left - 12, y: y + 18, "text-anchor": "end" }, target.name);
      bar(svg, px, y, target.table.error, `error ${target.table.verdict}`, "error");
      bar(svg, px, y + 15, target.table.noise, "noise", "noise floor");
    });
    return bottom + 36;
  });
}

function bar(svg, px, y, { value, low, high }, className, label) {
  const width = Math.max(1, px(value) - px(0));
  draw(svg, "rect", { class: className, x: px(0), y, width, height: 12 });
  line(svg, "whisker", px(low), y + 6, px(high), y + 6);
  for (const end of [low, high]) line(svg, "whisker", px(end), y + 3, px(end), y + 9);
  draw(svg, "text", { x: px(Math.max(high, value)) + 8, y: y + 10 }, `${label} ${percent(value)}`);
}

// ---- training ---------------------------------------------------------------------------------

function training(host, { series, subnets_from }) {
  const all = series.flatMap((one) => one.points), bottom = 220;
  chart(host, "Loss over the steps of training", (svg, width) => {
    const box = { left: LEFT, right: width - 92, top: TOP, bottom };
    const [low, high] = extent(all.map((p) => p[1]), 0.05);
    const { px, py } = axes(svg, box,
      { low: 0, high: Math.max(...all.map((p) => p[0])), label: "step" },
      { low: Math.max(0, low), high, label: "loss, nats" });
    if (subnets_from) {
      line(svg, "limit", px(subnets_from), TOP, px(subnets_from), bottom);
      draw(svg, "text", { x: px(subnets_from) + 5, y: TOP + 8 }, "subnets join");
    }
    const taken = [];
    series.forEach((one, n) => {
      path(svg, `curve s${n}`, one.points.map(([a, b]) => [px(a), py(b)]));
      const [x, y] = one.points[one.points.length - 1];
      let at = py(y) + 4;
      while (taken.some((other) => Math.abs(other - at) < 13)) at -= 13;
      taken.push(at);
      draw(svg, "text", { class: `s${n}`, x: px(x) + 6, y: at }, one.label);
    });
    return bottom + BOTTOM;
  });
}

// ---- the page ---------------------------------------------------------------------------------

let shown_panel = null; // what the panel that is shown is of

let known = {}; // what panels draw, by key

/** Draw a panel, if it is not drawn yet. */
function drawn(article) {
  const key = article.dataset.panel, plot = article.querySelector(".plot");
  if (known[key] && plot && !plot.firstChild) front(article, known[key]);
}

/** Show one panel; those of others stay for print. */
function show(key) {
  for (const article of document.querySelectorAll(".panel")) {
    if (article.dataset.panel === key) shown_panel = nameOf(article);
    article.classList.toggle("off", article.dataset.panel !== key);
    if (article.dataset.panel === key) drawn(article);
  }
  for (const tab of document.querySelectorAll(".tab")) {
    tab.setAttribute("aria-pressed", tab.dataset.panel === key);
  }
}

function drawAll() {
  data = JSON.parse(document.getElementById("data").textContent);
  known = panels();
  const tabs = [...document.querySelectorAll(".tab")];
  for (const tab of tabs) tab.addEventListener("click", () => show(tab.dataset.panel));
  const keys = tabs.map((tab) => tab.dataset.panel);
  const before = [...document.querySelectorAll(".panel")].find((a) => nameOf(a) === shown_panel);
  show(before?.dataset.panel ?? keys.find((key) => known[key]) ?? keys[0]);
  data.targets.forEach((target, n) => {
    const plot = document.getElementById(`heldout-${n}`);
    if (plot) heldout(plot, target.table.heldout, `latency on ${target.name}`, "ms");
    const metered = document.getElementById(`energy-${n}`);
    if (!metered) return;
    if (!target.energy.heldout.length) metered.remove();
    else heldout(metered, target.energy.heldout, `energy on ${target.name}`, "mJ");
  });
  const bars = document.getElementById("errors");
  if (bars) errors(bars);
  if (data.training) training(document.getElementById("curve"), data.training);
  document.documentElement.dataset.ready = "yes";
}

drawAll();
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll(".warn")) folded.open = true;
  document.querySelectorAll(".panel").forEach(drawn);
});
