// What of a page cannot be read or named, as texts: contrast of every text that is shown, names of
// controls and pictures, order of headings, ids, cells. Rules: WCAG 2.2, 1.4.3, 1.4.11, 1.3.1, 4.1.2.
(() => {
  const found = [];
  const parse = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [...parts.slice(0, 3).map((v) => 255 * v), parts[3] ?? 1]
      : [...parts.slice(0, 3), parts[3] ?? 1];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((v, n) => a * v + (1 - a) * below[n]);
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const shown = (node) => node.getClientRects().length && getComputedStyle(node).visibility !== "hidden";
  const check = (node, style, text, what) => {
    const colour = parse(node instanceof SVGElement ? style.fill : style.color), below = behind(node);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const least = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const is = ratio(over(colour, below), below);
    if (is < least) found.push(`${what} "${text.slice(0, 40)}" has contrast ${is.toFixed(2)}, below ${least}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, node = text.parentElement;
    if (!text.data.trim() || node.closest("script, style, noscript") || !shown(node)) continue;
    check(node, getComputedStyle(node), text.data.trim(), node.tagName);
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    const style = getComputedStyle(node, "::before");
    if (shown(node) && style.content.startsWith('"')) check(node, style, style.content, "label");
  }
  for (const node of document.querySelectorAll("a, button, select, summary, input, svg[role=img]")) {
    const name = node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent;
    if (shown(node) && !name.trim()) found.push(`${node.outerHTML.slice(0, 80)} has no name`);
  }
  for (const node of document.querySelectorAll("button, select")) {
    const is = ratio(over(parse(getComputedStyle(node).borderTopColor), behind(node.parentElement)),
      behind(node.parentElement));
    if (shown(node) && is < 3) found.push(`border of ${node.textContent.slice(0, 40)}: ${is.toFixed(2)}`);
  }
  for (const node of document.querySelectorAll("pre, .scroll")) {
    if (shown(node) && node.scrollWidth > node.clientWidth + 1 && node.tabIndex < 0) {
      found.push(`${node.outerHTML.slice(0, 80)} scrolls and cannot be reached by keys`);
    }
  }
  let last = 0;
  for (const node of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Number(node.tagName[1]);
    if (level > last + 1) found.push(`heading ${node.textContent} skips a level`);
    last = level;
  }
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) found.push(`id ${id} twice`);
  for (const node of document.querySelectorAll("th:not([scope])")) found.push(`th ${node.textContent}: no scope`);
  if (!document.documentElement.lang || document.querySelectorAll("main, h1").length !== 2) {
    found.push("the page needs a language, one main and one h1");
  }
  return [...new Set(found)];
})()
