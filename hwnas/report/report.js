// Draws the report from the JSON in #data, with the means of charts.js.

// ---- fronts -----------------------------------------------------------------------------------

/** What is known of a metric: measured where it was measured, else predicted. */
const known = (item, name) => item.measured?.[name] ?? item.predicted[name];

/** Points that no other one beats in both the metric and error, cheapest first. */
function stairs(points, name) {
  let best = Infinity;
  const sorted = [...points].sort(
    (a, b) => known(a, name) - known(b, name) || known(a, "error") - known(b, "error"));
  return sorted.filter((point) => {
    const better = known(point, "error") < best;
    if (better) best = known(point, "error");
    return better;
  });
}

/** Whether a package and a network are one; on the front of a device, of one target too. */
const same = (a, b) => a.id === b.id && a.target === b.target;

/** The chart, slider and details of the front of a target or a device. */
function front(article, target) {
  const points = target.front.points;
  const packages = target.packages.filter((p) => p.test_error !== null);
  const plot = article.querySelector(".plot");
  const key = html(plot, "p", "key"), host = html(plot, "div", "chart");
  const slider = html(plot, "input");
  slider.type = "range";
  const baselines = target.baselines;
  const state = { points, packages, baselines, targets: target.targets || [],
    name: target.front.costs[0], marks: [], budget: 0 };
  const reset = () => {
    const costs = points.map((p) => known(p, state.name));
    const least = Math.min(...costs), most = Math.max(...costs);
    const shownCosts = packages.map((p) => known(p, state.name)).filter(Number.isFinite);
    state.near = baselines.filter((b) => b[state.name] <= 1.5 * most); // others would squeeze it
    state.range = extent(costs.concat(shownCosts, state.near.map((b) => b[state.name])), 0.05);
    state.budget = least + 0.6 * (most - least);
    const [min, max] = state.range;
    Object.assign(slider, { min, max, step: (max - min) / 500, value: state.budget });
    slider.setAttribute("aria-label", `budget of ${metric(state.name).label}, ${target.name}`);
  };
  reset();
  const view = chart(host, `Front of ${target.name}`, (svg, width) => {
    state.best = stairs(points, state.name)
      .filter((p) => known(p, state.name) <= state.budget).pop();
    const height = paintFront(svg, width, state);
    slider.style.marginLeft = `${LEFT - THUMB / 2}px`;
    slider.style.width = `${width - LEFT - RIGHT + THUMB}px`;
    slider.setAttribute("aria-valuetext", shown(state.name, state.budget));
    details(article.querySelector(".pick"), target, state);
    return height;
  });
  legend(key, state, target.front.costs, () => { reset(); view.repaint(); });
  slider.addEventListener("input", () => {
    state.budget = Number(slider.value);
    view.repaint();
  });
  explore(view.svg, () => state.marks, (mark) => describe(mark.item, state.name), ({ item }) => {
    const point = points.find((p) => same(p, item)) || item; // a package chooses its network
    slider.value = known(point, state.name);
    state.budget = known(point, state.name); // exactly: the slider rounds to its steps
    view.repaint();
  });
}

function paintFront(svg, width, state) {
  const { points, packages, name, best } = state, { scale, label, unit } = metric(name);
  const height = Math.max(260, Math.min(380, width * 0.5));
  const box = { left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
  const errors = points.map((p) => known(p, "error")).concat(packages.map((p) => p.test_error));
  const [least, most] = extent(errors.map((e) => 100 * e), 0.07);
  const [low, high] = state.range.map((value) => value * scale);
  const { px, py } = axes(svg, box, { low, high, label: `${label}, ${unit}` },
    { low: Math.max(least, 0), high: most, label: "error, %" });
  const x = (item) => px(known(item, name) * scale), y = (item) => py(100 * known(item, "error"));
  const at = px(state.budget * scale);
  draw(svg, "rect", { class: "over", x: at, y: TOP, width: Math.max(0, box.right - at),
    height: box.bottom - TOP });
  const steps = stairs(points, name).map((p, n) => (n ? `H${x(p)}V${y(p)}` : `M${x(p)} ${y(p)}`));
  draw(svg, "path", { class: "stairs", d: steps.join("") });
  state.near.forEach((item, n) => {
    const place = px(item[name] * scale), left = place > (box.left + box.right) / 2;
    line(svg, "baseline", place, TOP, place, box.bottom);
    draw(svg, "text", { class: "baseline", x: place + (left ? -4 : 4), y: TOP + 10 + 13 * (n % 4),
      "text-anchor": left ? "end" : "start" }, item.name);
  });
  state.marks = points.map((item) => ({ item, x: x(item), y: y(item) }));
  for (const mark of state.marks) {
    const kind = state.targets.length ? colour(state, mark.item.target)
      : mark.item.measured ? "measured" : "";
    const kinds = [kind, mark.item === best ? "chosen" : ""];
    draw(svg, "circle", { class: `point ${kinds.join(" ")}`.trim(), cx: mark.x, cy: mark.y,
      r: mark.item === best ? 5.5 : 3.6 });
  }
  for (const item of packages.filter((p) => Number.isFinite(known(p, name)))) {
    const mark = { item, x: x(item), y: py(100 * item.test_error) };
    const from = state.marks.find((other) => same(other.item, item));
    if (from) line(svg, "link", from.x, from.y, mark.x, mark.y);
    draw(svg, "path", { class: "package",
      d: `M${mark.x} ${mark.y - 6.5}l6.5 6.5l-6.5 6.5l-6.5-6.5z` });
    state.marks.push(mark);
  }
  state.marks.sort((a, b) => a.x - b.x);
  line(svg, "budget", at, TOP, at, box.bottom);
  return height;
}

/** The class that a target's networks are drawn in, on the front of its device. */
const colour = (state, target) => `of${state.targets.indexOf(target) % 5}`;

function legend(key, state, costs, changed) {
  const entry = (text, tag, attributes) => {
    const span = html(key, "span");
    draw(draw(span, "svg", { width: 12, height: 12 }), tag, attributes);
    span.append(text);
  };
  const circle = (className, r) => ["circle", { class: className, cx: 6, cy: 6, r }];
  for (const name of state.targets) entry(name, ...circle(`point ${colour(state, name)}`, 3.6));
  if (!state.targets.length) entry("predicted", ...circle("point", 3.6));
  if (!state.targets.length && state.points.some((p) => p.measured)) {
    entry("measured latency", ...circle("point measured", 3.6));
  }
  entry("chosen", ...circle("point chosen", 5));
  if (state.packages.length) {
    entry("package: measured latency, test error", "path",
      { class: "package", d: "M6 0l6 6l-6 6l-6-6z" });
  }
  if (state.baselines.length) {
    entry("baseline: measured latency, error unknown", "path", { class: "baseline", d: "M6 0V12" });
  }
  if (costs.length < 2) return;
  const select = html(html(key, "label", "", "cost "), "select");
  for (const name of costs) html(select, "option", "", metric(name).label).value = name;
  select.addEventListener("change", () => { state.name = select.value; changed(); });
}

function describe(item, name) {
  const lines = [item.name ? `package ${item.name}` : `network ${item.id}`];
  if (item.target) lines.push(item.target);
  lines.push(item.name ? `test error ${percent(item.test_error)}`
    : `predicted error ${percent(item.predicted.error)}`);
  for (const kind of ["predicted", "measured"]) {
    const value = item[kind]?.[name];
    if (Number.isFinite(value)) lines.push(`${kind} ${metric(name).label} ${shown(name, value)}`);
  }
  return lines;
}

/** What the budget buys, beside the chart. */
function details(host, target, { points, name, budget, best }) {
  host.replaceChildren();
  html(host, "p", "budget", `${metric(name).label} ≤ ${shown(name, budget)}`);
  if (!best) {
    const least = Math.min(...points.map((p) => known(p, name)));
    html(host, "p", "bad", "No network of this front is within the budget; the smallest has " +
      `${shown(name, least)}.`);
    return;
  }
  const list = html(host, "dl");
  const row = (label, value) => {
    html(list, "dt", "", label);
    return html(list, "dd", "", value);
  };
  if (best.target) row("target", best.target).className = "mono";
  row("network", best.id).className = "mono";
  row("input", best.input);
  for (const [each, value] of Object.entries(best.predicted)) {
    const measured = best.measured?.[each], predicted = each === "latency_ms" ? "predicted " : "";
    const more = Number.isFinite(measured) ? `, measured ${shown(each, measured)}` : "";
    row(metric(each).label, predicted + shown(each, value) + more);
  }
  const made = target.packages.find((p) => same(p, best));
  if (made) {
    const link = html(row("package", ""), "a", "", made.file);
    link.href = made.href;
  } else {
    row("package", "none yet; to make it, add to pick in hwnas.yaml:");
    html(host, "code", "", `- {budget: {${name}: ${budgetFor(known(best, name))}}}`);
  }
  if (best.stages) times(host, best.stages);
}

/** Where the chosen network's predicted time goes: one bar a stage. */
function times(host, stages) {
  html(host, "h4", "", "Where its time goes, predicted");
  const total = stages.reduce((sum, [, ms]) => sum + ms, 0);
  const most = Math.max(...stages.map(([, ms]) => ms));
  for (const [name, ms] of stages) {
    const bar = html(host, "div", "bar");
    html(bar, "span", "", name);
    html(html(bar, "span"), "i").style.width = `${(100 * ms) / most}%`;
    html(bar, "b", "", `${Math.round((100 * ms) / total)}%`);
  }
}

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
    marks = paintHeldout(svg, rows, width - RIGHT, unit);
    return 334 + BOTTOM;
  });
  explore(view.svg, () => marks, ({ row }) => [
    `network ${row.id}`,
    `predicted ${short(row.predicted)} ${unit}`,
    `measured ${short(row.a)} and ${short(row.b)} ${unit}`,
    `gap ${signed(row.gap)}`,
  ]);
}

function paintHeldout(svg, rows, right, unit) {
  const measured = rows.map((row) => row.measured);
  const [low, high] = extent(measured.flatMap((v) => [0.95 * v, 1.05 * v])
    .concat(rows.map((row) => row.predicted)), 0.02);
  const repeat = (row) => 50 * Math.abs(row.a - row.b) / row.measured; // half their distance, %
  const span = Math.max(7, ...rows.map((row) => 1.05 * (Math.abs(100 * row.gap) + repeat(row))));
  const top = axes(svg, { left: LEFT, right, top: TOP, bottom: 212 },
    { low, high, bare: true }, { low, high, label: `predicted, ${unit}` });
  const [first, last] = extent(measured, 0.01);
  const corner = (value, share) => [top.px(value), top.py(value * share)];
  path(svg, "band", [corner(first, 0.95), corner(last, 0.95), corner(last, 1.05),
    corner(first, 1.05)]);
  path(svg, "limit", [corner(first, 1), corner(last, 1)]);
  const { px, py } = axes(svg, { left: LEFT, right, top: 244, bottom: 334 },
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
      { low: Math.max(0, low), high, label: "loss" });
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

data.targets.forEach((target, n) => {
  const article = document.querySelector(`article[data-target="${n}"]`);
  if (article.querySelector(".plot")) front(article, target);
  const plot = document.getElementById(`heldout-${n}`);
  if (plot) heldout(plot, target.table.heldout, `latency on ${target.name}`, "ms");
  const metered = document.getElementById(`energy-${n}`);
  if (!metered) return;
  if (!target.energy.heldout.length) metered.remove();
  else heldout(metered, target.energy.heldout, `energy on ${target.name}`, "mJ");
});
data.devices.forEach((device, n) => {
  front(document.querySelector(`article[data-device="${n}"]`), device);
});
errors(document.getElementById("errors"));
if (data.training) training(document.getElementById("curve"), data.training);
document.documentElement.dataset.ready = "yes";
