// Score maps: layer by expert, what two methods' scorers gave and what was kept. The data come from
// a file beside the page once the maps are seen (see score_maps.py); all choices are in the address.
"use strict";

{
  const place = document.getElementById("score-maps");
  const LEFT = 28, BELOW = 18, SHARED = 50;  // px around the cells: layers, experts, the bar of each layer
  const LARGEST = 22, LOWEST = 9, DROPPED = 0.34;  // px of a cell, px of a row, height of what was dropped
  const SHADES = 32, PALEST = 0.25;
  const SIDES = ["left", "right"];
  const WORDS = {
    colour: [["", "by rank in the layer"], ["score", "by score in the layer"]],
    order: [["", "by rank on the left"], ["number", "by number"]],
  };
  let data = null, cell = null, seen = null;  // cell: { layer, expert } that is looked at

  // ---- data

  function decode(text, Type) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Type(bytes.buffer);
  }
  const known = { scores: new Map(), masks: new Map(), into: new Map() };
  function array(kind, number, Type) {
    if (!known[kind].has(number)) known[kind].set(number, decode(data[kind][number], Type));
    return known[kind].get(number);
  }

  // What a map shows: kept (function), scores, and by layer the experts from best to worst, their ranks, and the cut.
  function side(view, name) {
    const own = view[name], text = view.texts[name];
    const { experts, layers } = view.model;
    const bits = array("masks", own.mask, Uint8Array);
    const kept = (at) => (bits[at >> 3] >> (7 - (at & 7))) & 1;
    // Layers may keep different numbers.
    const counts = layers.map((_, layer) => {
      let count = 0;
      for (let at = layer * experts; at < (layer + 1) * experts; at++) count += kept(at);
      return count;
    });
    const into = own.into === null ? null : array("into", own.into, Int16Array);
    if (text === null) return { own, text, kept, counts, into, scores: null };
    const scores = array("scores", view.model.scores[own.method][text], Float64Array);
    const order = [], rank = new Uint16Array(scores.length), cuts = [];
    for (let layer = 0; layer < layers.length; layer++) {
      const from = layer * experts, k = counts[layer];
      // As the scorer's own ranking: equal scores by lower number, which a stable sort keeps.
      const best = [...Array(experts).keys()].sort((a, b) => scores[from + b] - scores[from + a]);
      best.forEach((expert, position) => { rank[from + expert] = position; });
      order.push(best);
      const at = (position) => scores[from + best[Math.min(position, experts - 1)]];
      cuts.push({ cut: (at(Math.max(0, k - 1)) + at(k)) / 2, most: at(0), least: at(experts - 1) });
    }
    return { own, text, kept, counts, into, scores, order, rank, cuts };
  }

  // How far from the cut, from 0 to 1 for the layer's best and worst.
  function distance(view, map, layer, at, above) {
    const k = map.counts[layer];
    if (view.colour === "score") {
      const { cut, most, least } = map.cuts[layer];
      const whole = above ? most - cut : cut - least;
      return whole > 0 ? Math.abs(map.scores[at] - cut) / whole : 0;
    }
    return above ? (k - map.rank[at]) / k : (map.rank[at] - k + 1) / (view.model.experts - k);
  }

  // ---- what is chosen

  function chosen() {
    const model = data.models.find((own) => own.name === choices.get("model")) ?? data.models[0];
    const budgets = model.budgets.filter((own) => own.masks.length);
    const budget = budgets.find((own) => String(own.retain) === choices.get("kept")) ?? budgets[Math.floor(budgets.length / 2)];
    if (!budget) return { model, budgets, budget };
    const named = (name) => budget.masks.find((own) => own.label === choices.get(name));
    const left = named("left") ?? budget.masks[0];
    const right = named("right") ?? budget.masks.find((own) => own.mask !== left.mask) ?? left;
    const texts = {};
    for (const [name, own] of [["left", left], ["right", right]]) {
      const known = Object.keys(model.scores[own.method] ?? {});
      texts[name] = known.includes(choices.get(`${name}-text`)) ? choices.get(`${name}-text`) : known[0] ?? null;
    }
    return { model, budgets, budget, left, right, texts, colour: choices.get("colour"), order: choices.get("order") };
  }

  function fill(name, options, current) {
    const label = place.querySelector(`[data-choice="${name}"]`);
    label.hidden = options.length < 2;
    const list = label.querySelector("select");
    list.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === current)));
  }
  function fillAll(view) {
    fill("model", data.models.map((own) => [own.name, own.name]), view.model.name);
    fill("kept", view.budgets.map((own) => [String(own.retain), own.pruned]), String(view.budget?.retain));
    for (const name of SIDES) {
      fill(name, view.budget.masks.map((own) => [own.label, own.label]), view[name].label);
      fill(`${name}-text`, Object.keys(view.model.scores[view[name].method] ?? {}).map((text) => [text, text]), view.texts[name]);
    }
    for (const name of ["colour", "order"]) fill(name, WORDS[name], view[name]);
  }

  // ---- drawing

  function rgb(variable) {
    place.style.setProperty("outline-color", `var(${variable})`);
    const found = getComputedStyle(place).outlineColor.match(/[\d.]+/g).slice(0, 3).map(Number);
    place.style.removeProperty("outline-color");
    return found;
  }
  function palette() {
    const back = rgb("--back");
    const shades = (hue) => Array.from({ length: SHADES + 1 }, (_, at) => {
      const share = PALEST + (1 - PALEST) * at / SHADES;
      return `rgb(${hue.map((part, i) => Math.round(part * share + back[i] * (1 - share))).join(" ")})`;
    });
    const [text, mark, line] = ["--text", "--mark", "--line"].map((name) => `rgb(${rgb(name).join(" ")})`);
    return { above: shades(rgb("--link")), below: shades(rgb("--bad")), text, mark, line };
  }
  function shade(colours, view, map, layer, at) {
    if (!map.scores) return colours.mark;
    const above = map.rank[at] < map.counts[layer];
    return (above ? colours.above : colours.below)[Math.round(distance(view, map, layer, at, above) * SHADES)];
  }

  // Position of an expert within a layer, and the expert at a position.
  function arrangement(view, maps) {
    const leading = view.order ? null : maps.find((map) => map.scores);
    return {
      leading,
      expert: (layer, position) => (leading ? leading.order[layer][position] : position),
      position: (layer, expert) => (leading ? leading.rank[layer * view.model.experts + expert] : expert),
    };
  }

  const numberOf = (path, index) => path.match(/\.(\d+)(\.|$)/)?.[1] ?? String(index);

  // `most`: of both maps, what each layer keeps, to which the bars of what they share are drawn.
  function drawMap(canvas, view, map, size, colours, arranged, shared, most) {
    const { model } = view;
    const scale = size.scale, wide = size.width * model.experts, high = size.height * model.layers.length;
    const full = { width: LEFT * scale + wide + (shared ? SHARED * scale : 0), height: high + BELOW * scale };
    [canvas.width, canvas.height] = [full.width, full.height];
    [canvas.style.width, canvas.style.height] = [`${full.width / scale}px`, `${full.height / scale}px`];
    const pen = canvas.getContext("2d");
    const gap = size.width >= 4 ? 1 : 0;
    const low = Math.max(1, Math.round((size.height - 1) * DROPPED));
    for (let layer = 0; layer < model.layers.length; layer++) {
      for (let position = 0; position < model.experts; position++) {
        const expert = arranged.expert(layer, position), at = layer * model.experts + expert;
        pen.fillStyle = shade(colours, view, map, layer, at);
        const x = LEFT * scale + position * size.width, y = layer * size.height;
        if (map.kept(at)) pen.fillRect(x, y, size.width - gap, size.height - 1);
        else pen.fillRect(x, y + ((size.height - 1 - low) >> 1), size.width - gap, low);
      }
    }
    pen.fillStyle = colours.text;
    pen.font = `${11 * scale}px sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const every = Math.ceil(14 * scale / size.height);
    model.layers.forEach((path, layer) => {
      const y = (layer + 0.5) * size.height;
      if (layer % every === 0) pen.fillText(numberOf(path, layer), (LEFT - 6) * scale, y);
      if (!shared) return;
      const x = LEFT * scale + wide + 8 * scale, length = (SHARED - 8) * scale;
      pen.fillStyle = colours.line;
      pen.fillRect(x, y - 2 * scale, length, 4 * scale);
      pen.fillStyle = colours.text;
      pen.fillRect(x, y - 2 * scale, length * shared[layer] / Math.max(1, ...most.map((counts) => counts[layer])), 4 * scale);
    });
    pen.textAlign = "left";
    pen.textBaseline = "bottom";
    if (shared) pen.fillText("shared", LEFT * scale + wide + 8 * scale, full.height);
    if (arranged.leading) {
      pen.fillText("best", LEFT * scale, full.height);
      const last = arranged.leading.counts[model.layers.length - 1];
      pen.fillText(arranged.leading === map ? "| cut" : "| cut of the other", LEFT * scale + last * size.width, full.height);
      arranged.leading.counts.forEach((count, layer) =>
        pen.fillRect(LEFT * scale + count * size.width - 1, layer * size.height, Math.max(1, scale), size.height));
    } else {
      const step = [1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128].find((one) => one * size.width >= 26 * scale) ?? 256;
      for (let expert = 0; expert < model.experts; expert += step) {
        pen.fillText(String(expert), LEFT * scale + expert * size.width, full.height);
      }
    }
    const still = document.createElement("canvas");
    [still.width, still.height] = [canvas.width, canvas.height];
    still.getContext("2d").drawImage(canvas, 0, 0);
    return still;
  }

  function draw() {
    if (!data || !place.clientWidth) return;
    const view = chosen();
    if (!view.budget) return tell("No method of this model has a mask.");
    fillAll(view);
    const maps = SIDES.map((name) => side(view, name));
    const { experts, layers } = view.model;
    const shared = layers.map((_, layer) => {
      let both = 0;
      for (let at = layer * experts; at < (layer + 1) * experts; at++) both += maps[0].kept(at) & maps[1].kept(at);
      return both;
    });
    const canvases = [...place.querySelectorAll("canvas")];
    const room = Math.min(...canvases.map((canvas, at) => canvas.parentElement.clientWidth - LEFT - at * SHARED));
    const scale = Math.max(1, Math.round(devicePixelRatio));
    const width = Math.max(2, Math.min(LARGEST * scale, Math.floor(room * scale / experts)));
    const size = { scale, width, height: Math.max(LOWEST * scale, width) };
    const colours = palette(), arranged = arrangement(view, maps);
    const stills = canvases.map((canvas, at) => drawMap(canvas, view, maps[at], size, colours, arranged, at ? shared : null, maps.map((map) => map.counts)));
    seen = { view, maps, shared, canvases, stills, size, arranged, colours };
    caption(view, maps);
    cell = cell && cell.layer < layers.length && cell.expert < experts ? cell : null;
    look(cell);
  }

  // ---- words

  const figure = (value) => (value === 0 ? "0" : Number(value.toPrecision(4)).toString());
  const percent = (share) => `${Math.round(100 * share)} %`;

  function caption(view, maps) {
    const { model } = view;
    const range = (counts) => [...new Set([Math.min(...counts), Math.max(...counts)])].join("–");
    [...place.querySelectorAll("figcaption")].forEach((line, at) => {
      const map = maps[at], small = document.createElement("small");
      small.textContent = [map.text === null ? "no scores" : `scores on ${map.text}`, ...map.own.marks,
        ...(map.own.stability === null ? [] : [`${percent(map.own.stability)} stay on redrawn text`])].join(", ");
      line.replaceChildren(map.own.label, small);
      seen.canvases[at].setAttribute("aria-label",
        `${map.own.label}, ${small.textContent}: ${model.layers.length} layers by ${model.experts} experts, ${range(map.counts.map((count) => model.experts - count))} pruned in each. Arrow keys move.`);
    });
    place.querySelector(".ends").textContent = view.colour === "score"
      ? "vermillion: below the cut, blue: above it by the method's own score; the stronger, the farther in score, the layer's extremes in full colour"
      : `vermillion: not among the ${range(maps.flatMap((map) => map.counts))} best of the layer by the method's own score, blue: among them; the paler, the closer to the cut`;
    place.querySelector(".cell.none").parentElement.hidden = maps.every((map) => map.scores);
    const sum = (counts) => counts.reduce((whole, one) => whole + one, 0);
    const both = sum(seen.shared), kept = maps.map((map) => sum(map.counts));
    // What two random masks with so many in each layer would share.
    const chance = sum(maps[0].counts.map((count, layer) => count * maps[1].counts[layer] / model.experts));
    const shares = seen.shared.map((one, layer) => one / Math.max(1, ...maps.map((map) => map.counts[layer])));
    const least = shares.indexOf(Math.min(...shares));
    const alone = maps.map((map, at) => {
      const count = kept[at] - both;
      return `${count} ${count === 1 ? "is" : "are"} kept by ${map.own.label} alone`;
    });
    place.querySelector(".shared").textContent =
      `Both keep ${both} of ${Math.max(...kept)} (${percent(both / Math.max(...kept))}; two random masks share ${percent(chance / Math.max(...kept))} on average); `
      + `${alone.join(", ")}. `
      + `Least shared: ${seen.shared[least]} of ${Math.max(...maps.map((map) => map.counts[least]))}, in layer ${numberOf(model.layers[least], least)}.`;
  }

  // Mark a cell on both maps, and say all that is known of it.
  function look(at) {
    cell = at;
    const { view, maps, canvases, stills, size, arranged, colours } = seen;
    canvases.forEach((canvas, index) => {
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(stills[index], 0, 0);
      if (!at) return;
      pen.strokeStyle = colours.text;
      pen.lineWidth = 2 * size.scale;
      pen.strokeRect(LEFT * size.scale + arranged.position(at.layer, at.expert) * size.width, at.layer * size.height, size.width, size.height);
    });
    const line = place.querySelector(".readout");
    if (!at) {
      line.textContent = "Point at a cell, or focus a map and use the arrow keys.";
      return;
    }
    const path = view.model.layers[at.layer], where = document.createElement("b");
    where.textContent = `Layer ${numberOf(path, at.layer)}, expert ${at.expert}`;
    line.replaceChildren(where, ` (${path})`, ...maps.flatMap((map) => [document.createElement("br"), ofMap(view, map, at)]));
  }
  // What becomes of a pruned expert's tokens.
  function fate(map, at) {
    if (map.own.constants) return "pruned, a constant in its place";
    if (map.into === null || map.into[at] < 0) return "pruned";
    return `pruned, merged into expert ${map.into[at]}`;
  }
  function ofMap(view, map, { layer, expert }) {
    const at = layer * view.model.experts + expert, kept = map.kept(at) ? "kept" : fate(map, at);
    if (!map.scores) return `${map.own.label}: ${kept}`;
    const margin = map.scores[at] - map.cuts[layer].cut;
    return `${map.own.label}: ${kept}; score ${figure(map.scores[at])} on ${map.text}, rank ${map.rank[at] + 1} of ${view.model.experts}, `
      + `${figure(Math.abs(margin))} ${margin < 0 ? "below" : "above"} the cut`;
  }
  function tell(text) {
    place.querySelector(".told").textContent = text;
  }

  // ---- events

  function start() {
    [...place.querySelectorAll("canvas")].forEach((canvas) => {
      canvas.addEventListener("pointermove", (event) => {
        const { size, view, arranged } = seen, { left, top } = canvas.getBoundingClientRect();
        const position = Math.floor(((event.clientX - left) * size.scale - LEFT * size.scale) / size.width);
        const layer = Math.floor((event.clientY - top) * size.scale / size.height);
        if (position < 0 || position >= view.model.experts || layer >= view.model.layers.length || layer < 0) return;
        const expert = arranged.expert(layer, position);
        if (cell?.layer !== layer || cell.expert !== expert) look({ layer, expert });
      });
      canvas.addEventListener("focus", () => { if (!cell) look({ layer: 0, expert: seen.arranged.expert(0, 0) }); });
      canvas.addEventListener("keydown", (event) => {
        const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
        if (!down && !right) return;
        event.preventDefault();
        const { model } = seen.view, within = (value, end) => Math.min(end - 1, Math.max(0, value));
        const layer = within(cell.layer + down, model.layers.length);
        look({ layer, expert: seen.arranged.expert(layer, within(seen.arranged.position(cell.layer, cell.expert) + right, model.experts)) });
      });
    });
    for (const label of place.querySelectorAll("[data-choice]")) {
      label.querySelector("select").addEventListener("change", ({ target }) => choices.set({ [label.dataset.choice]: target.value }));
    }
    choices.listeners.push(draw);
    let width = 0;
    new ResizeObserver(() => {
      if (width !== place.clientWidth) draw();
      width = place.clientWidth;
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  function load() {
    tell("Loading …");
    globalThis.scoreMaps = (given) => {
      data = given;
      tell("");
      place.querySelector(":scope > [hidden]").hidden = false;
      start();
      draw();
    };
    const script = document.createElement("script");
    script.src = place.dataset.source;
    script.addEventListener("error", () => tell(`The maps need the file ${place.dataset.source} beside this page, which is not there.`));
    document.body.append(script);
  }

  if (place) {
    const sight = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      sight.disconnect();
      load();
    });
    sight.observe(place);
  }
}
