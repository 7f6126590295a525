// What wins along a front, and what may be locked or forbidden of it.

// ---- what wins along the front ----------------------------------------------------------------

const kindOf = (name) => name.slice(name.lastIndexOf(".") + 1);

/** Kinds of choices, each with its choices and its classes: all options or, where these are many of
 * choices of different sizes, quarters of the largest. */
function kinds({ choices }) {
  const found = new Map();
  for (const [name, options] of choices) {
    const kind = kindOf(name);
    if (!found.has(kind)) found.set(kind, { kind, names: new Map(), options: [] });
    const one = found.get(kind);
    one.names.set(name, options);
    one.options = [...new Set([...one.options, ...options])].sort((a, b) => a - b);
  }
  return [...found.values()].filter((one) => one.options.length > 1).map((one) => {
    const few = one.options.length <= 8 || one.names.size === 1;
    const quarter = (option, [most]) => Math.max(0, Math.ceil((4 * option) / (most || 1)) - 1);
    return { ...one, few, classes: few ? one.options.map(String) : ["to 25%", "50%", "75%", "100%"],
      of: few ? (option) => one.options.indexOf(option)
        : (option, name) => quarter(option, one.names.get(name).slice(-1)) };
  });
}

/** Strips below the chart: of each kind of choice, how many of a network's choices have which
 * option, from the cheapest network to the best, at the budgets that they win. */
function paintWins(svg, width, state) {
  const { stairs, name, range } = state, right = width - RIGHT;
  const px = (cost) => LEFT + ((cost - range[0]) / (range[1] - range[0])) * (right - LEFT);
  const rows = kinds(state);
  if (state.targets.length) rows.unshift({ kind: "target", classes: state.targets, own: true });
  let y = 0;
  for (const { kind, names, classes, of, own } of rows) {
    const shade = (n) => own ? { class: `fill ${colour(state, classes[n])}` }
      : { class: "win", opacity: 0.18 + (0.82 * n) / Math.max(1, classes.length - 1) };
    key(svg, y + 11, right, kind.replaceAll("_", " "), classes, shade);
    const paths = classes.map(() => ""); // one for each class: there may be 500 networks
    stairs.forEach((point, at) => {
      const from = px(point.predicted[name]);
      const to = at + 1 < stairs.length ? px(stairs[at + 1].predicted[name]) : right;
      const counts = classes.map((target) => Number(!!own && point.target === target));
      if (!own) {
        for (const choice of names.keys()) {
          if (choice in point.options) counts[of(point.options[choice], choice)]++;
        }
      }
      const total = counts.reduce((a, b) => a + b, 0);
      let top = y + 16;
      counts.forEach((count, n) => {
        const height = (14 * count) / total;
        if (count) paths[n] += `M${from} ${top}H${to}v${height}H${from}z`;
        top += height || 0;
      });
    });
    paths.forEach((d, n) => { if (d) draw(svg, "path", { d, ...shade(n) }); });
    y += 36;
  }
  line(svg, "budget", px(state.budget), 0, px(state.budget), y);
  return Math.max(1, y);
}

/** Name of a strip and its colours; where they do not fit, of numbers the first and the last. */
function key(svg, y, right, title, classes, shade) {
  draw(svg, "text", { class: "name", x: LEFT, y }, title);
  const names = classes.map((name) => (isNaN(name) ? name.slice(name.indexOf(".") + 1) : name));
  const width = (name) => 6.5 * name.length + 21;
  const room = right - LEFT - 90, all = names.reduce((sum, name) => sum + width(name), 0);
  const some = all < room ? names.map((_, n) => n) : isNaN(names[0]) ? [] : [0, names.length - 1];
  let x = right;
  for (const n of some.reverse()) {
    x -= width(names[n]) - 8;
    draw(svg, "rect", { x, y: y - 8, width: 9, height: 9, ...shade(n) });
    draw(svg, "text", { x: x + 13, y }, names[n]);
    if (n && all >= room) draw(svg, "text", { x: x -= 16, y }, "to");
    x -= 8;
  }
}

// ---- locking and forbidding -------------------------------------------------------------------

/** Options to lock or forbid: what the front keeps, and the settings that search so. */
function steer(host, state, changed) {
  html(host, "summary", "", "Lock or forbid options");
  const select = html(html(host, "label", "", "of "), "select");
  const offered = new Map();
  for (const { kind, names, options, few } of kinds(state)) {
    if (few && names.size > 1) offered.set(`*.${kind}`, options);
  }
  for (const [name, options] of state.choices) if (options.length > 1) offered.set(name, options);
  for (const name of offered.keys()) {
    html(select, "option", "", name.startsWith("*.") ? `every ${name.slice(2)}` : name).value = name;
  }
  const boxes = html(host, "span", "boxes"), told = html(host, "p"), yaml = html(host, "pre");
  yaml.tabIndex = 0;
  const copy = html(host, "button", "", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => {
    getSelection().selectAllChildren(yaml);
    document.execCommand("copy"); // works from a file too, where navigator.clipboard may not
  });
  const show = () => {
    const lines = Object.entries(state.only).map(([name, options]) =>
      `    ${JSON.stringify(name)}: [${options.join(", ")}]`);
    const kept = state.points.filter((p) => keeps(p, state.only)).length;
    told.textContent = lines.length ? `${kept} of ${state.points.length} networks of this front ` +
      "keep to it; a search of its own finds more. Put this into hwnas.yaml and run it; " +
      "training and tables stay:" : "Untick what no network may have, or all but one to lock it.";
    yaml.textContent = ["search:", "  only:", ...lines].join("\n");
    yaml.hidden = copy.hidden = !lines.length;
  };
  const offer = () => {
    boxes.replaceChildren();
    const name = select.value, options = offered.get(name);
    for (const option of options) {
      const label = html(boxes, "label"), box = html(label, "input");
      box.type = "checkbox";
      box.value = option;
      box.checked = !state.only[name] || state.only[name].includes(option);
      label.append(` ${option}`);
      box.addEventListener("change", () => {
        const left = options.filter((o) =>
          boxes.querySelector(`input[value="${o}"]`).checked);
        const stuck = state.choices.some(([choice, own]) => matches(choice, name)
          && !own.some((o) => left.includes(o)));
        if (stuck) box.checked = true; // a choice has at least one option
        else if (left.length === options.length) delete state.only[name];
        else state.only[name] = left;
        show();
        changed();
      });
    }
  };
  select.addEventListener("change", offer);
  offer();
  show();
}
