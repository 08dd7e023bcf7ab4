// Figures of the leaderboard: looked up in its data, written out, and placed on an axis.
"use strict";

const leaderboardFigures = (() => {
  const MINUS = "−";
  const nameOf = (label) => (label === "none" ? "unpruned" : label);

  // First minus second: { value, low, high, p, adjusted, tested, early, clear, family, size }; null for a row itself.
  function compare(board, first, second) {
    if (first === second) return null;
    const places = [first, second].map((label) => board.rows.findIndex((row) => row.label === label));
    const count = board.rows.length;
    const found = (list, at, sign, family) => {
      const [value, low, high, p, adjusted] = list[at];
      // An early figure has an interval and no test.
      const early = list[at].length === 3;
      const tested = early || adjusted !== undefined;
      const turned = sign > 0 ? [low, high] : [-high, -low];
      return { value: value === null ? null : sign * value, low: tested ? turned[0] : null, high: tested ? turned[1] : null,
        p, adjusted, tested, early, clear: early ? low > 0 || high < 0 : tested && adjusted < 0.05, family, size: list.length };
    };
    const one = (label, at, other, otherAt, sign) => {
      if (other === "none") return found(board.vsUnpruned, label === "random" ? count : at, sign, "unpruned");
      if (other === "random") return found(board.vsRandom, at, sign, "random");
      return null;
    };
    if (places[0] >= 0 && places[1] >= 0) {
      const [low, high] = [...places].sort((a, b) => a - b);
      const at = low * count - low * (low + 1) / 2 + (high - low - 1);
      return found(board.pairs, at, places[0] < places[1] ? 1 : -1, "methods");
    }
    return second === "none" || (second === "random" && first !== "none")
      ? one(first, places[0], second, places[1], 1) : one(second, places[1], first, places[0], -1);
  }

  function wonAndLost(view, label, reference) {
    const won = view.budget.won;
    if (!won || view.score.id !== "score") return null;
    const at = (name) => view.board.rows.findIndex((row) => row.label === name);
    const [first, second] = [at(label), at(reference)];
    if (reference === "none") return first < 0 ? null : won.unpruned[first];
    if (label === "none") return second < 0 ? null : won.unpruned[second]?.toReversed() ?? null;
    if (first < 0 || second < 0 || first === second) return null;
    const count = view.board.rows.length;
    const [low, high] = [first, second].sort((a, b) => a - b);
    const pair = won.pairs[low * count - low * (low + 1) / 2 + (high - low - 1)];
    return pair && (first < second ? pair : pair.toReversed());
  }

  // ---- figures in words

  const minus = (text) => text.replace("-", MINUS);
  const number = (value) => (value === null || value === undefined ? "–" : minus(value.toFixed(3)));
  function signed(value) {
    if (value === null || value === undefined) return "–";
    const text = value && Math.abs(value) < 0.0005 ? value.toFixed(4) : value.toFixed(3);
    return minus(Number(text) >= 0 ? `+${text.replace("-", "")}` : text);
  }
  const bounds = (low, high) => `[${signed(low)}, ${signed(high)}]`;
  const share = (value) => minus(`${Math.round(100 * value)} %`);

  // Three digits: 65 536 is 65.5 k.
  function tokens(count) {
    const [size, prefix] = [[1e9, "\u00a0G"], [1e6, "\u00a0M"], [1e3, "\u00a0k"]].find(([size]) => count >= size) ?? [1, ""];
    return `${Number((count / size).toPrecision(3))}${prefix}`;
  }

  // A p-value too small for a number is not zero, and one below 5 % is not written as 5 %.
  function pText(p) {
    if (p === 0) return `< 1e${MINUS}300`;
    if (p < 0.001) return minus(p.toExponential(0));
    return p < 0.05 && p.toFixed(3) === "0.050" ? "< 0.05" : p.toFixed(3);
  }

  function figure(task, value) {
    if (task.metric !== "perplexity") return number(value);
    return value >= 1e6 ? value.toExponential(1).replace("e+", "e") : value.toFixed(value < 100 ? 2 : value < 1000 ? 1 : 0);
  }

  function median(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    return sorted.length ? (sorted[middle] + sorted.at(-1 - middle)) / 2 : 0;
  }

  // An axis over the scores and whiskers; of figures far from all others it shows the edge.
  function axisOf(rows, at) {
    const values = rows.map((row) => row.score).filter((value) => value !== null).sort((a, b) => a - b);
    if (!values.length) return null;
    const whiskers = at === null ? [] : rows.filter((row) => row.compared?.tested)
      .map((row) => [at + row.compared.low, at + row.compared.high]);
    const usual = median(whiskers.map(([low, high]) => high - low));
    // Up to a quarter that is far from all others stands at the edge (as in axis.py).
    let [first, last] = [0, values.length - 1];
    for (let count = 1; count <= values.length / 4; count += 1) {
      const end = values.length - 1 - count;
      const [spread, rest] = [values[end] - values[first], values[last] - values[count]].map((own) => 10 * Math.max(own, usual));
      if (spread > 0 && values[end + 1] - values[end] > spread) last = Math.min(last, end);
      if (rest > 0 && values[count] - values[count - 1] > rest) first = count;
    }
    let [low, high] = [values[first], values[last]];
    const spread = Math.max(high - low, usual) || Math.abs(high) / 10 || 0.1;
    const near = whiskers.flat().filter((end) => end >= low - spread && end <= high + spread);
    [low, high] = [Math.min(low, ...near), Math.max(high, ...near)];
    const margin = 0.05 * (high - low || spread);
    [low, high] = [low - margin, high + margin];
    const power = 10 ** Math.floor(Math.log10((high - low) / 5));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= (high - low) / 5 * 0.999999);
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const ticks = [];
    for (let n = Math.ceil(low / step); n * step <= high; n += 1) ticks.push(Number((n * step).toFixed(decimals)) + 0);
    const place = (value) => 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    return { place, ticks, decimals, beyond: (value) => value < low || value > high };
  }

  return { nameOf, compare, wonAndLost, minus, number, signed, bounds, share, tokens, pText, figure, axisOf };
})();
