// Fronts: unpacked, drawn, explored. Stands in one function with charts.js and the others.

// ---- unpacking (compact.py) -------------------------------------------------------------------

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/** Options by choice of a packed architecture; absent choices have none. */
function unpackArch(text, choices) {
  const found = {}, sizes = choices.map(([, options]) => options.length + 1);
  for (let first = 0, at = 0; first < choices.length; at += 2) {
    let last = first, total = sizes[first];
    while (last + 1 < choices.length && total * sizes[last + 1] <= 4096) total *= sizes[++last];
    let code = 64 * ALPHABET.indexOf(text[at]) + ALPHABET.indexOf(text[at + 1]);
    for (let n = last; n >= first; n--) {
      const [name, options] = choices[n], option = code % sizes[n];
      if (option) found[name] = options[option - 1];
      code = Math.floor(code / sizes[n]);
    }
    first = last + 1;
  }
  return found;
}

/** The networks of a front as objects. */
function unpack({ ids, archs, choices, measured, predicted, stages, shares }) {
  const part = (text, n) => text.slice((n * text.length) / ids.length,
    ((n + 1) * text.length) / ids.length);
  const value = ({ digits, values }, n) =>
    digits >= 0 ? values[n] / 10 ** digits : values[n] * 10 ** -digits;
  return ids.map((id, n) => ({
    id, options: unpackArch(part(archs, n), choices), measured: measured[n],
    predicted: Object.fromEntries(Object.entries(predicted).map(([k, of]) => [k, value(of, n)])),
    stages: stages.map((name, at) => [name, Number(part(shares, n).substr(2 * at, 2))])
      .filter(([, share]) => share > 0),
  }));
}

// ---- fronts -----------------------------------------------------------------------------------

/** All that a panel draws: of a target, or of a device over its targets. */
function panels() {
  const fronts = data.targets.map((t) => t.front && { ...t.front, ...t, targets: [],
    front: null, points: unpack(t.front) });
  const found = {};
  fronts.forEach((front, n) => { if (front) found[`t${n}`] = front; });
  data.devices.forEach((device, n) => {
    const used = [...new Set(device.points.map(([target]) => target))];
    const points = device.points.map(([target, at]) =>
      ({ ...fronts[target].points[at], target: data.targets[target].name }));
    const packages = used.flatMap((target) =>
      data.targets[target].packages.map((p) => ({ ...p, target: data.targets[target].name })));
    const most = (what) => used.map((target) => fronts[target][what]).reduce((one, other) =>
      Object.fromEntries(Object.keys({ ...one, ...other }).map((key) =>
        [key, Math.max(one[key] || 0, other[key] || 0)])));
    found[`d${n}`] = { ...fronts[used[0]], ...device, points, packages, baselines: [],
      uncertain: most("uncertain"), noise: most("noise"),
      targets: used.map((target) => data.targets[target].name) };
  });
  return found;
}

/** Whether a network keeps to what is locked: `only` holds options by pattern of choices. */
function keeps(point, only) {
  return Object.entries(only).every(([pattern, options]) =>
    Object.entries(point.options).every(([name, option]) =>
      !matches(name, pattern) || options.includes(option)));
}

const matches = (name, pattern) => name === pattern
  || (pattern.startsWith("*.") && name.endsWith(pattern.slice(1)));

/** Points that no other one beats in both the metric and error, as predicted, cheapest first. */
function stairs(points, name) {
  let best = Infinity;
  const sorted = [...points].sort((a, b) =>
    a.predicted[name] - b.predicted[name] || a.predicted.error - b.predicted.error);
  return sorted.filter(({ predicted: { error } }) => {
    const better = error < best;
    if (better) best = error;
    return better;
  });
}

/** Whether a package and a network are one; on the front of a device, of one target too. */
const same = (a, b) => a.id === b.id && a.target === b.target;

/** Whether a network was measured over a budget by more than the noise, so nothing picks it. */
function missed(point, { name, budget, noise, packages }) {
  const value = point.measured?.[name];
  const disturbed = packages.some((p) => same(p, point) && p.measured?.verdict === "disturbed");
  return value > budget * (1 + (noise[name] || 0)) && !disturbed;
}

const views = {}; // what was chosen on a target or device, kept when the page draws itself anew

/** What a panel is of: its key is a place, which another may have when the page is drawn anew. */
const nameOf = ({ dataset: { panel, name } }) => `${panel[0]} ${name}`;

/** The chart, slider and details of the front of a target or a device. */
function front(article, panel) {
  const state = views[nameOf(article)] ??= { name: panel.costs[0], only: { ...panel.only }, share: null };
  Object.assign(state, panel, { name: state.name, only: state.only, marks: [] });
  const plot = article.querySelector(".plot"), host = html(plot, "div", "chart");
  const slider = html(plot, "input"), strips = html(plot, "div", "chart");
  slider.type = "range";
  const caption = html(plot, "p", "caption");
  const reset = () => {
    const costs = state.points.map((p) => p.predicted[state.name]);
    const least = Math.min(...costs), most = Math.max(...costs);
    state.near = state.baselines.filter((b) => b[state.name] <= 1.5 * most); // no others fit
    const shownCosts = state.packages.map((p) => p.measured?.[state.name]).filter(Number.isFinite);
    state.range = extent([...costs, ...shownCosts, ...state.near.map((b) => b[state.name])], 0.05);
    const ships = (p) => p.id === panel.ship?.id && (p.target ?? panel.name) === panel.ship.target;
    const first = state.points.find(ships)?.predicted[state.name];
    state.budget = state.share === null ? first ?? least + 0.6 * (most - least)
      : least + state.share * (most - least);
    const [min, max] = state.range;
    Object.assign(slider, { min, max, step: (max - min) / 500, value: state.budget });
    slider.setAttribute("aria-label", `budget of ${metric(state.name).label}, ${panel.name}`);
    state.choose = (value) => {
      state.budget = value;
      state.share = (value - least) / (most - least || 1);
      repaint();
    };
  };
  reset();
  const view = chart(host, `Front of ${panel.name}`, (svg, width) => {
    state.kept = state.points.filter((p) => keeps(p, state.only));
    state.stairs = stairs(state.kept, state.name);
    state.best = stairs(state.kept.filter((p) => !missed(p, state)), state.name)
      .filter((p) => p.predicted[state.name] <= state.budget).pop();
    const height = paintFront(svg, width, state);
    slider.style.marginLeft = `${LEFT - THUMB / 2}px`;
    slider.style.width = `${width - LEFT - RIGHT + THUMB}px`;
    slider.setAttribute("aria-valuetext", shown(state.name, state.budget));
    details(article.querySelector(".pick"), state);
    return height;
  });
  const wins = chart(strips, `What wins along the front of ${panel.name}`,
    (svg, width) => paintWins(svg, width, state));
  const repaint = () => { view.repaint(); wins.repaint(); };
  legend(caption, state, () => { reset(); repaint(); });
  steer(html(plot, "details", "steer"), state, repaint);
  slider.addEventListener("input", () => state.choose(Number(slider.value)));
  explore(view.svg, () => state.marks, (mark) => describe(mark.item, state), ({ item }) => {
    const cost = (state.points.find((p) => same(p, item)) || item).predicted[state.name];
    slider.value = cost;
    state.choose(cost); // exactly: the slider rounds to its steps
  });
  const all = article.querySelector(".all");
  all?.addEventListener("toggle", () => table(all, state), { once: true });
}

/** Where something was measured: cost and error, each as predicted where it was not. */
function spot(item, name) {
  const measured = item.measured || {};
  const error = item.test_error ?? measured.test_error ?? item.predicted.error;
  return [measured[name] ?? item.predicted[name], error];
}

function paintFront(svg, width, state) {
  const { points, packages, name, best } = state, { scale, label, unit } = metric(name);
  const height = Math.max(250, Math.min(380, width * 0.48));
  const box = { left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM };
  const made = packages.filter((p) => p.test_error !== null || p.measured?.[name]);
  const other = points.filter((p) => p.measured && !made.some((m) => same(m, p)));
  const spots = [...points.map((p) => p.predicted.error), ...[...made, ...other]
    .map((item) => spot(item, name)[1])].map((e) => 100 * e);
  const [least, most] = extent(spots, 0.07), half = 50 * (state.uncertain.error || 0);
  const [low, high] = state.range.map((value) => value * scale);
  const { px, py } = axes(svg, box, { low, high, label: `${label}, ${unit}${perBatch(state)}` }, {
    low: Math.max(0, least - Math.min(half, (most - least) / 2)),
    high: Math.min(100, most + Math.min(half, (most - least) / 2)), label: "error, %" });
  const inside = (value, a, b) => Math.max(a, Math.min(b, value));
  const x = (cost) => px(cost * scale), y = (error) => inside(py(100 * error), TOP, box.bottom);
  const at = x(state.budget);
  band(svg, state, (cost) => inside(x(cost), LEFT, box.right), y);
  draw(svg, "rect", { class: "over", x: at, y: TOP, width: Math.max(0, box.right - at),
    height: box.bottom - TOP });
  if (state.stairs.length) path(svg, "stairs", corners(state, x, y));
  state.near.forEach((item, n) => {
    const left = x(item[name]) > (box.left + box.right) / 2;
    line(svg, "baseline", x(item[name]), TOP, x(item[name]), box.bottom);
    draw(svg, "text", { class: "baseline", x: x(item[name]) + (left ? -4 : 4),
      y: TOP + 10 + 13 * (n % 4), "text-anchor": left ? "end" : "start" }, item.name);
  });
  state.marks = points.map((item) => ({ item, x: x(item.predicted[name]), y: y(item.predicted.error) }));
  const open = new Set(state.kept);
  for (const { item, x: cx, y: cy } of state.marks) {
    const kinds = ["point", state.targets.length ? colour(state, item.target) : "",
      item === best ? "chosen" : "", open.has(item) ? "" : "out"];
    draw(svg, "circle", { class: kinds.filter(Boolean).join(" "), cx, cy,
      r: item === best ? 5.5 : points.length > 120 ? 2.4 : 3.4 });
  }
  for (const item of [...other, ...made]) {
    const [cost, error] = spot(item, name), mark = { item, x: x(cost), y: y(error) };
    const from = state.marks.find((one) => same(one.item, item));
    if (from) line(svg, "link", from.x, from.y, mark.x, mark.y);
    draw(svg, "path", { class: item.name ? "package" : "measured", d: diamond(mark.x, mark.y, 6) });
    state.marks.push(mark);
  }
  state.marks.sort((a, b) => a.x - b.x);
  line(svg, "budget", at, TOP, at, box.bottom);
  return height;
}

const diamond = (x, y, r) => `M${x} ${y - r}l${r} ${r}l-${r} ${r}l-${r}-${r}z`;

/** Corners of stairs, each point moved by a share of its cost and by an error. */
const corners = ({ stairs, name }, x, y, share = 0, error = 0) => stairs.flatMap((point, n) => {
  const at = [x(point.predicted[name] * (1 + share)), y(point.predicted.error + error)];
  return n ? [[at[0], y(stairs[n - 1].predicted.error + error)], at] : [at];
});

/** Between the stairs of the best and the worst that predictor and table leave possible. */
function band(svg, state, x, y) {
  const error = state.uncertain.error || 0, share = state.uncertain[state.name] || 0;
  if (!state.stairs.length || !(error || share)) return;
  const low = corners(state, x, y, -share, -error), high = corners(state, x, y, share, error);
  const end = [high[high.length - 1][0], low[low.length - 1][1]];
  path(svg, "band", [...low, end, ...high.reverse(), [low[0][0], high[high.length - 1][1]]]);
}

/** The class that a target's networks are drawn in, on the front of its device. */
const colour = (state, target) => `of${state.targets.indexOf(target) % 5}`;
const perBatch = ({ name, batch }) => (name === "latency_ms" || name === "energy_mj") && batch > 1
  ? ` per batch of ${batch}` : "";

function legend(host, state, changed) {
  const entry = (text, tag, attributes) => {
    const span = html(host, "span", "entry");
    draw(draw(span, "svg", { width: 12, height: 12, "aria-hidden": "true" }), tag, attributes);
    span.append(text);
  };
  const circle = (className, r) => ["circle", { class: className, cx: 6, cy: 6, r }];
  if (state.costs.length > 1) {
    const select = html(html(host, "label", "entry", "cost "), "select");
    for (const name of state.costs) html(select, "option", "", metric(name).label).value = name;
    select.value = state.name;
    select.addEventListener("change", () => { state.name = select.value; changed(); });
  }
  for (const name of state.targets) entry(name, ...circle(`point ${colour(state, name)}`, 3.4));
  if (!state.targets.length) entry("predicted, on validation images", ...circle("point", 3.4));
  entry("chosen", ...circle("point chosen", 5));
  if (state.packages.length) {
    entry("package: measured, on test images", "path", { class: "package", d: diamond(6, 6, 5) });
  }
  if (state.baselines.length) {
    entry("baseline: measured latency, error unknown", "path", { class: "baseline", d: "M6 0V12" });
  }
  const { error, latency_ms: share } = state.uncertain;
  const told = [error && `predictor, ± ${short(100 * error, 1)} points`,
    share && `table, ± ${percent(share)}`].filter(Boolean);
  if (told.length) {
    entry(`95 % of networks lie here (${told.join("; ")})`, "rect",
      { class: "band", width: 12, height: 12 });
  }
  html(host, "span", "", "Stairs, slider and hwnas pick go by predictions. Strips: of the network " +
    "that wins at a budget, how many of its choices have which option.");
}

function describe(item, { name }) {
  const lines = [item.name ? `package ${item.name}` : `network ${item.id}`];
  if (item.target) lines.push(item.target);
  const [cost, error] = spot(item, name), { predicted, measured } = item;
  const tested = (item.test_error ?? measured?.test_error) !== undefined && item.test_error !== null;
  lines.push(tested ? `test error ${percent(error)}, predicted ${percent(predicted.error)}`
    : `predicted error ${percent(predicted.error)}`);
  const also = measured?.[name] === undefined ? "" : `measured ${shown(name, cost)}, `;
  lines.push(`${metric(name).label}: ${also}predicted ${shown(name, predicted[name])}`);
  return lines;
}

/** What the budget buys, beside the chart. */
function details(host, state) {
  const { kept, name, budget, best } = state;
  host.replaceChildren();
  html(host, "p", "budget", `${metric(name).label} ≤ ${shown(name, budget)}${perBatch(state)}`);
  if (!best) {
    const least = Math.min(...kept.map((p) => p.predicted[name]));
    html(host, "p", "bad", kept.length ? "No network of this front is within the budget; the " +
      `smallest has ${shown(name, least)}.` : "No network of this front keeps to what is locked.");
    return;
  }
  const list = html(host, "dl");
  const row = (label, value) => {
    html(list, "dt", "", label);
    return html(list, "dd", "", value);
  };
  if (best.target) row("target", best.target).className = "mono";
  row("network", best.id).className = "mono";
  row("input", `${best.options.resolution} ${state.unit}`);
  for (const [each, value] of Object.entries(best.predicted)) {
    const off = state.uncertain[each];
    const sure = !off ? "" : each === "error" ? ` ± ${short(100 * off, 1)}` : ` ± ${percent(off)}`;
    const measured = best.measured?.[each === "error" ? "test_error" : each];
    const more = Number.isFinite(measured) ? `; measured ${shown(each, measured)}` : "";
    row(metric(each).label, shown(each, value) + sure + more);
  }
  const made = state.packages.find((p) => same(p, best));
  if (made) {
    html(row("package", ""), "a", "", made.file).href = made.href;
  } else {
    row("package", "none yet; to make it, add to pick in hwnas.yaml:");
    html(host, "code", "", `- {budget: {${name}: ${budgetFor(best.predicted[name])}}}`);
  }
  if (best.stages.length) times(host, best.stages);
}

/** Where the chosen network's predicted time goes: one bar a stage. */
function times(host, stages) {
  html(host, "h3", "", "Where its time goes, predicted");
  const most = Math.max(...stages.map(([, share]) => share));
  for (const [name, share] of stages) {
    const bar = html(host, "div", "bar");
    html(bar, "span", "", name);
    html(html(bar, "span"), "i").style.width = `${(100 * share) / most}%`;
    html(bar, "b", "", `${share}%`);
  }
}

/** All networks of a front, for those who do not want to see the chart. */
function table(host, { points }) {
  const names = Object.keys(points[0].predicted);
  const scroll = html(host, "div", "scroll");
  scroll.tabIndex = 0;
  const body = html(scroll, "table"), head = html(html(body, "thead"), "tr");
  html(head, "th", "", "network").scope = "col";
  for (const name of names) html(head, "th", "n", metric(name).label).scope = "col";
  const rows = html(body, "tbody");
  for (const point of points) {
    const row = html(rows, "tr");
    html(row, "th", "mono", point.id).scope = "row";
    for (const name of names) {
      const cell = html(row, "td", "n", shown(name, point.predicted[name]));
      const measured = point.measured?.[name === "error" ? "test_error" : name];
      if (measured !== undefined) html(cell, "small", "", ` measured ${shown(name, measured)}`);
    }
  }
}
