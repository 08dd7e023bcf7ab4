// Everything that is known of a board, not only what is shown of it: CSV, JSON, LaTeX and Markdown.
"use strict";

// `rows` in their order, as leaderboard.js makes them; `tasks` of the data.
const leaderboardDownloads = (rows, tasks) => {
  const { nameOf, number, signed, bounds } = leaderboardFigures;

  const fileName = (view) => [view.model.name, view.budget.pruned, view.score.name, "vs", nameOf(view.reference)]
    .join(" ").toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 100);

  function records(view) {
    return rows.map((row) => {
      const c = row.compared;
      return {
        model: view.model.name, router: view.model.router, kept: view.budget.retain, score: view.score.name,
        method: nameOf(row.label), rank_best: row.rank?.[0] ?? null, rank_worst: row.rank?.[1] ?? null,
        tied_for_best: row.tied ?? null, value: row.score, no_value_because: row.why ?? null, seeds: row.seeds ?? 1, std: row.std ?? null,
        minimum: row.range?.[0] ?? null, maximum: row.range?.[1] ?? null,
        gap_closed: row.gap?.[0] ?? null, gap_closed_low: row.gap?.[1] ?? null, gap_closed_high: row.gap?.[2] ?? null,
        masks_beaten: row.beaten ?? null, reference: nameOf(view.reference), difference: c?.value ?? null,
        low: c?.low ?? null, high: c?.high ?? null, p: c?.p ?? null, p_adjusted: c?.adjusted ?? null,
        clear: c?.tested ? c.clear : null, family: c?.family ?? null, family_size: c?.size ?? null,
        not_tested_because: c && !c.tested ? view.board.untested[c.family] ?? view.board.untested.random ?? null : null,
        items_against: row.won ? nameOf(view.itemsAgainst) : null, items_won: row.won?.[0] ?? null, items_lost: row.won?.[1] ?? null,
        right_to_wrong: row.flips?.[1] ?? null, wrong_to_right: row.flips?.[0] ?? null, kl_of_choices: row.kl ?? null, predictions_changed: row.changed ?? null,
        marks: row.facts.flatMap((own) => own.marks).join(", ") || null, mask_stability: row.facts[0]?.stability ?? null,
        calibration_tokens: row.facts[0]?.calibration ?? null, search_tokens: row.facts[0]?.search ?? null, checkpoint_bytes: row.facts[0]?.bytes ?? null,
        n: view.board.units.reduce((sum, [, , count]) => sum + count, 0),
        ...Object.fromEntries(tasks.map((task, at) => [`${task.name} (${task.metric})`, row.tasks[at] ?? null])),
        ...Object.fromEntries(Object.entries(view.budget.answers).flatMap(([task, methods]) => ["looping", "cut off"].map(
          (what, at) => [`${task} (${what})`, methods[row.names[0]]?.[at] ?? null]))),
      };
    });
  }

  const caption = (view) => `${view.score.name} of ${view.model.name} with ${view.budget.pruned} (${view.budget.kept}, router ${view.model.router}); `
    + `difference to ${nameOf(view.reference)} with 95 % intervals that hold for all at once (Holm), over `
    + `${view.board.units.map(([task, unit, count]) => `${count} ${unit} of ${task}`).join(", ")}`;

  function csv(view) {
    const rows = records(view);
    const cell = (value) => {
      const text = value === null ? "" : String(value);
      const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return [Object.keys(rows[0]), ...rows.map(Object.values)].map((line) => line.map(cell).join(",")).join("\n") + "\n";
  }

  const json = (view) => `${JSON.stringify({ caption: caption(view), rows: records(view) }, null, 1)}\n`;

  function shortTable(view) {
    return records(view).map((row) => [row.method, row.rank_best ? [...new Set([row.rank_best, row.rank_worst])].join("–") : "–",
      number(row.value), row.difference === null ? "–" : signed(row.difference),
      row.low === null ? "–" : bounds(row.low, row.high)]);
  }
  const HEADS = ["Method", "Rank", "Score", "Difference", "95 % interval"];

  function tex(view) {
    const names = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", "–": "--", "\u00a0": "~" };
    const escape = (text) => text.replace(/[\\~^−–\u00a0&%$#_{}]/g, (sign) => names[sign] ?? `\\${sign}`);
    const line = (cells) => `${cells.map(escape).join(" & ")} \\\\`;
    return ["% needs \\usepackage{booktabs}", "\\begin{table}", `\\caption{${escape(caption(view))}.}`, "\\begin{tabular}{lrrrr}",
      "\\toprule", line(HEADS), "\\midrule", ...shortTable(view).map(line), "\\bottomrule", "\\end{tabular}", "\\end{table}", ""].join("\n");
  }

  function md(view) {
    const escape = (text) => text.replace(/[\\`*_[\]<>|~]/g, "\\$&");
    const line = (cells) => `| ${cells.map(escape).join(" | ")} |`;
    return [escape(caption(view)), "", line(HEADS), "| --- | ---: | ---: | ---: | ---: |", ...shortTable(view).map(line), ""].join("\n");
  }

  return { fileName, csv, json, tex, md };
};
