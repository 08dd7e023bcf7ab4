// One leaderboard, with a budget, a model, a score and a method to compare with, all kept in the
// address. It computes nothing: every figure is in the data beside it (see leaderboard_data.py).
"use strict";

const boards = unpack("boards").then(JSON.parse);

boards.then((data) => {
  const { nameOf, compare, wonAndLost, number, signed, bounds, share, tokens, pText, figure, axisOf } = leaderboardFigures;
  const section = document.getElementById("leaderboard");

  function start() {
    section.querySelectorAll(":scope > :not(h2)").forEach((part) => part.remove());
    const controls = element("form", { className: "controls", onsubmit: () => false });
    controls.setAttribute("aria-label", "What the leaderboard shows");
    controls.setAttribute("role", "search");
    const box = element("div", { className: "lb-box" });
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Leaderboard");
    box.tabIndex = 0;
    const key = element("p", { className: "key" });
    section.append(controls, box, key);
    const draw = () => {
      const view = chosen();
      const focus = document.activeElement?.closest?.(".controls, .lb thead")
        && document.activeElement.dataset.focus;
      if (!controls.contains(document.activeElement) || document.activeElement.id !== "filter") {
        const opened = [...controls.querySelectorAll("details")].map((menu) => menu.open);
        controls.replaceChildren(...controlsOf(view));
        [...controls.querySelectorAll("details")].forEach((menu, at) => { menu.open = opened[at] ?? false; });
      }
      const reset = controls.querySelector(".reset");
      if (reset) reset.hidden = !["sort", "filter", "columns"].some((name) => choices.get(name));
      box.replaceChildren(tableOf(view));
      key.replaceChildren(...keyOf(view));
      if (focus) section.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
    };
    choices.listeners.push(draw);
    draw();
    const opened = () => [...section.querySelectorAll(".menu[open]")];
    document.addEventListener("pointerdown", (event) => {
      for (const menu of opened()) if (!menu.contains(event.target)) menu.open = false;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      for (const menu of opened()) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
    });
  }

  // ---- what is chosen

  function chosen() {
    const model = data.models.find((own) => own.name === choices.get("model")) ?? data.models[0];
    // Not one that a published checkpoint alone has.
    const compared = model.budgets.filter((own) => own.boards[data.scores[0]?.id]?.rows.length > 1);
    const usualBudgets = compared.length ? compared : model.budgets;
    const middle = usualBudgets[Math.floor(usualBudgets.length / 2)];
    const budget = model.budgets.find((own) => String(own.retain) === choices.get("kept")) ?? middle;
    const scores = data.scores.filter((own) => budget.boards[own.id]);
    const score = scores.find((own) => own.id === choices.get("by")) ?? scores[0];
    const board = score ? budget.boards[score.id] : null;
    const references = board ? [
      ...(board.unpruned ? ["none"] : []), ...(board.random ? ["random"] : []),
      ...board.rows.map((row) => row.label)] : [];
    const asked = choices.get("vs");
    const byName = board?.rows.find((row) => row.names.includes(asked))?.label ?? asked;
    const usual = references.includes("random") ? "random" : references[0];
    const reference = references.includes(byName) ? byName : usual;
    // Random pruning is several masks, with which no item is won or lost.
    const itemsAgainst = reference === "random" ? "none" : reference;
    return { model, budget, scores, score, board, references, reference, itemsAgainst };
  }

  function verdict(view, compared) {
    if (!compared.tested) return { kind: "unknown", icon: "?", text: "cannot tell" };
    if (!compared.clear) return { kind: "tie", icon: "≈", text: "tie" };
    const better = (compared.value > 0) === view.score.higher;
    return { kind: better ? "up" : "down", icon: compared.value > 0 ? "▲" : "▼", text: compared.value > 0 ? "higher" : "lower" };
  }

  // ---- rows and columns

  function rowsOf(view) {
    const { board, budget } = view;
    const figures = (name) => budget.tasks[name] ?? [];
    const rows = board.rows.map((row) => ({ ...row, kind: untold(board) ? "untold" : row.tied ? "tied" : "rest", tasks: figures(row.names[0]) }));
    for (const label of ["none", "random"]) {
      const reference = label === "none" ? board.unpruned : board.random;
      if (reference) rows.push({ ...reference, label, names: [label], kind: "base", tasks: figures(label) });
    }
    // Without the score, but with figures of some tasks.
    for (const { name, why, seeds } of board.unranked.filter((own) => measured(view, own))) {
      rows.push({ label: name, names: [name], why, seeds, score: null, kind: "rest", tasks: figures(name) });
    }
    for (const row of rows) {
      row.compared = row.why ? null : compare(board, row.label, view.reference);
      row.won = wonAndLost(view, row.label, view.itemsAgainst);
      const at = board.rows.findIndex((own) => own.label === row.label);
      // Against the unpruned model, whatever the rest is compared with.
      row.flips = view.score.id === "score" && at >= 0 ? budget.won?.unpruned[at] : null;
      row.kl = view.score.id === "score" ? budget.divergence[row.label] : undefined;
      row.facts = row.names.map((name) => budget.facts[name]).filter(Boolean);
      row.changed = view.score.higher ? undefined : budget.changed[row.label];
    }
    return rows;
  }

  const measured = (view, { name }) => name in view.budget.partly
    || (view.budget.tasks[name] ?? []).some((figure) => typeof figure === "number");

  // Mean of the seeds that have a task, and how many they are; undefined where all or none have it.
  const partly = (view, row, task) => view.budget.partly[row.names[0]]?.[task];

  // Of methods that share a row, a mark of some of them says whose it is.
  function marksOf(view, row) {
    const each = row.names.map((name) => view.budget.facts[name]?.marks ?? []);
    return new Set(each.flatMap((marks, at) => marks.map((mark) =>
      (each.every((own) => own.includes(mark)) ? mark : `${nameOf(row.names[at])}: ${mark}`))));
  }

  const EARLY = "Early: estimated from some of the items. Intervals of differences hold for the whole family at once, and however often was looked; there is no p-value";

  // Lines on how an early figure came about; none where all items were evaluated.
  const earlyLines = (view, row, task) => view.budget.early[row.names[0]]?.[task] ?? [];

  // Whether there is nothing to be tied for best with.
  const untold = (board) => board.rows.length < 2 || "methods" in board.untested;

  // `best`: the direction of the first click, which puts the best on top: -1 for large ones.
  function columnsOf(view) {
    const known = (name) => Object.values(view.budget.facts).some((own) => own[name]);
    // Methods with equal masks share a row, and may differ in what they cost.
    const each = (row, text) => [...new Set(row.facts.map(text))].join(", ") || "–";
    const up = view.score.higher ? -1 : 1;
    const columns = [
      { id: "rank", head: "Rank", term: "rank", value: (row) => row.rank?.[0], best: 1,
        text: (row) => (row.rank ? [...new Set(row.rank)].join("–") : "–") },
      { id: "score", head: view.score.name, term: "average", value: (row) => row.score, best: up, drawn: true },
      { id: "difference", head: `Difference to ${nameOf(view.reference)}`, term: "differences",
        value: (row) => row.compared?.value ?? (row.label === view.reference ? 0 : undefined), best: up },
      { id: "won", head: "Items", small: view.itemsAgainst === view.reference ? "won : lost" : "won : lost to unpruned", term: "won", value: (row) => row.won && row.won[0] - row.won[1], best: -1 },
      { id: "flips", head: "Flips", small: "right to wrong, wrong to right", hidden: true, term: "flips", value: (row) => row.flips && row.flips[1], best: 1,
        text: (row) => (row.flips ? `${row.flips[1]}, ${row.flips[0]}` : "–") },
      { id: "kl", head: "KL of choices", small: "nats, from unpruned", hidden: true, term: "kl", value: (row) => row.kl, best: 1,
        text: (row) => (row.kl === undefined ? "–" : number(row.kl)) },
      { id: "changed", head: "Predictions changed", small: "of tokens, from unpruned", hidden: true, term: "changed", value: (row) => row.changed, best: 1,
        text: (row) => (row.changed === undefined ? "–" : share(row.changed)) },
      { id: "p", head: "p", small: "adjusted", hidden: true, term: "clear", value: (row) => row.compared?.adjusted, best: 1,
        text: (row) => (row.compared?.tested && !row.compared.early ? pText(row.compared.adjusted) : "–") },
      { id: "gap", head: "Gap closed", small: "95 %", hidden: true, term: "gap-closed", value: (row) => row.gap?.[0], best: -1,
        text: (row) => (row.gap ? `${share(row.gap[0])} [${share(row.gap[1])}, ${share(row.gap[2])}]` : "–") },
      { id: "beaten", head: "Masks beaten", small: "of random", hidden: true, term: "masks-beaten", value: (row) => row.beaten, best: -1,
        text: (row) => (row.beaten === null || row.beaten === undefined ? "–" : `${row.beaten} of ${view.board.random.seeds ?? 1}`) },
      { id: "stability", head: "Stability", small: "of the mask", hidden: !known("stability"), term: "stability", value: (row) => row.facts[0]?.stability ?? undefined, best: -1,
        text: (row) => each(row, (own) => (own.stability === null ? "–" : share(own.stability))) },
      { id: "cost", head: "Cost", small: known("search") ? "tokens: texts + search" : "tokens", hidden: !known("calibration"), term: "cost", value: (row) => row.facts.length && row.facts[0].calibration !== null ? row.facts[0].calibration + row.facts[0].search : undefined, best: 1,
        text: (row) => each(row, (own) => (own.calibration === null ? "–" : tokens(own.calibration) + (own.search ? ` + ${tokens(own.search)}` : ""))) },
      { id: "bytes", head: "Checkpoint", small: "bytes as stored", hidden: true, term: "bytes", value: (row) => row.facts[0]?.bytes ?? undefined, best: 1,
        text: (row) => each(row, (own) => (own.bytes === null ? "–" : `${tokens(own.bytes)}${own.bytes < 1000 ? "\u00a0" : ""}B`)) },
      { id: "seeds", head: "Seeds", small: "± std, range", hidden: true, term: "error", value: (row) => row.std, best: 1,
        text: (row) => (row.std === undefined ? "–" : `± ${number(row.std)}, ${row.range.map(number).join("–")}`) },
    ];
    data.tasks.forEach((task, at) => {
      columns.push({
        id: `task:${task.name}`, head: task.name, small: task.metric + (task.higher ? "" : " ↓"), task: true,
        untold: view.budget.boards[`task:${task.name}`]?.untested.methods, hidden: !view.score.tasks.includes(task.name), term: task.metric.split(",")[0].replace("_", "-"),
        value: (row) => (typeof row.tasks[at] === "number" ? row.tasks[at] : undefined), best: task.higher ? -1 : 1,
        text: (row) => {
          const found = partly(view, row, task.name)?.[0] ?? row.tasks[at];
          return typeof found === "number" ? figure(task, found) : found ?? "–";
        },
      });
      const answers = view.budget.answers[task.name];
      if (!answers) return;
      const of = (row) => answers[row.names[0]] ?? [];
      const shares = (row) => of(row).map((own) => (own === null ? "–" : share(own))).join(", ");
      columns.push({ id: `task-answers:${task.name}`, head: `${task.name} answers`, small: "loop, cut off", hidden: !view.score.tasks.includes(task.name),
        term: "looping", value: (row) => of(row)[0] ?? of(row)[1], best: 1, text: (row) => shares(row) || "–" });
    });
    return columns;
  }

  function shownColumns(columns) {
    const asked = new Set(choices.get("columns").split(",").filter(Boolean));
    // A name in the list turns the column's usual state around.
    return columns.filter((column) => Boolean(column.hidden) === asked.has(column.id));
  }

  function ordered(view, columns, rows) {
    const [id, turned] = [choices.get("sort").replace(/^-/, ""), choices.get("sort").startsWith("-")];
    const column = columns.find((own) => own.id === id);
    const sign = (column ? column.best : view.score.higher ? -1 : 1) * (turned ? -1 : 1);
    const value = id === "method" ? null : (column ?? columns.find((own) => own.id === "score")).value;
    const missing = (x) => x === null || x === undefined || Number.isNaN(x);
    return [...rows].sort((a, b) => {
      if (!value) return (turned ? -1 : 1) * nameOf(a.label).localeCompare(nameOf(b.label), "en");
      const [x, y] = [value(a), value(b)];
      return missing(x) - missing(y) || (missing(x) ? 0 : sign * (x - y));
    });
  }

  // ---- drawing

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  const SVG = "http://www.w3.org/2000/svg";
  function shape(name, attributes, parent) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent?.append(made);
    return made;
  }

  function dots(view, row, axis, at) {
    const svg = shape("svg", { class: `dots ${row.kind}${row.early || row.compared?.early ? " early" : ""}`, "aria-hidden": "true" });
    for (const tick of axis.ticks) shape("line", { class: "grid", x1: `${axis.place(tick)}%`, x2: `${axis.place(tick)}%`, y1: 0, y2: "100%" }, svg);
    if (at !== null) shape("line", { class: "mean", x1: `${axis.place(at)}%`, x2: `${axis.place(at)}%`, y1: 0, y2: "100%" }, svg);
    if (row.compared?.tested && at !== null) {
      const [low, high] = [at + row.compared.low, at + row.compared.high].map(axis.place);
      shape("line", { class: "whisker", x1: `${low}%`, x2: `${high}%`, y1: "50%", y2: "50%" }, svg);
    }
    if (row.score !== null) {
      const x = axis.place(row.score);
      shape("circle", { class: "dot", cx: `${x}%`, cy: "50%", r: 4.5 }, svg);
      if (axis.beyond(row.score)) {
        shape("text", { class: "beyond", x: `${x}%`, y: "50%", dy: 4, dx: x > 50 ? -8 : 8, "text-anchor": x > 50 ? "end" : "start" }, svg)
          .textContent = x > 50 ? "beyond →" : "← beyond";
      }
    }
    return svg;
  }

  function tableOf(view) {
    if (!view.board) return element("p", {}, "Nothing is ranked at this budget.");
    const rows = rowsOf(view);
    const columns = columnsOf(view).filter((column) =>
      column.id !== "won" || rows.some((row) => row.won)).filter((column) => column.id !== "beaten" || view.board.random);
    const shown = shownColumns(columns);
    const words = choices.get("filter").toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    const wanted = (row) => row.kind === "base" || !words.length
      || row.names.some((name) => words.some((word) => name.toLowerCase().includes(word)));
    const at = rows.find((row) => row.label === view.reference)?.score ?? null;
    const axis = axisOf(rows, at);
    const table = element("table", { className: "lb", id: "lb" });
    const caption = `${view.model.name}, ${view.budget.pruned} (${view.budget.kept}), by ${view.score.name}`;
    table.append(element("caption", { className: "unseen" }, caption));
    const head = table.createTHead().insertRow();
    head.append(headOf({ id: "method", head: "Method", term: "method" }, view));
    for (const column of shown) head.append(headOf(column, view, axis));
    const body = table.createTBody();
    for (const row of ordered(view, columns, rows.filter(wanted))) {
      const line = body.insertRow();
      line.className = row.kind;
      const name = element("th", { scope: "row", title: row.names.map(nameOf).join(" = ") });
      const drawn = row.seeds > 1 || (row.label === "random" && !row.why);
      name.append(element("span", { className: "name" }, nameOf(row.label)),
        drawn ? " " : "",
        drawn ? element("small", {}, row.why ? `${row.seeds} seeds` : `mean of ${row.seeds ?? 1}`) : "",
        row.early ? element("a", { className: "mark", href: "#term-early", title: EARLY }, "early") : "",
        row.rank ? element("small", { className: "phone" }, `rank ${[...new Set(row.rank)].join("–")}`) : "");
      for (const mark of marksOf(view, row)) name.append(element("small", { className: "mark" }, mark));
      line.append(name);
      // Why there is no score stands where it and its difference would.
      const instead = row.why ? shown.filter(({ id }) => id === "score" || id === "difference") : [];
      for (const column of shown) {
        if (!instead.includes(column)) line.append(cellOf(view, row, column, axis, at));
        else if (column === instead[0]) line.append(element("td", { colSpan: instead.length, className: "failed why", title: row.why }, row.why));
      }
    }
    const narrow = matchMedia("(max-width: 760px)").matches;
    for (const own of [...view.board.unranked.filter((own) => !measured(view, own)), ...view.budget.gaps]) {
      const line = body.insertRow();
      line.className = "unranked";
      line.append(element("th", { scope: "row", title: own.name }, element("span", { className: "name" }, own.name)));
      // Columns that a phone does not show would take their share of its width.
      const spans = narrow ? shown.filter((column) => /^c-(score|difference)/.test(kindOf(column))).length : shown.length;
      line.append(element("td", { colSpan: spans || 1, className: "failed why", title: own.why }, own.why));
    }
    return table;
  }

  function headOf(column, view, axis) {
    const [id, turned] = [choices.get("sort").replace(/^-/, ""), choices.get("sort").startsWith("-")];
    const cell = element("th", { scope: "col", className: kindOf(column) });
    const button = element("button", { type: "button", title: "Sort: the best first" }, column.head);
    button.dataset.focus = `sort ${column.id}`;
    if (id === column.id) {
      cell.setAttribute("aria-sort", (column.best ?? 1) * (turned ? -1 : 1) > 0 ? "ascending" : "descending");
      button.append(element("span", { className: "arrow" }, turned ? " ↑" : " ↓"));
    }
    button.addEventListener("click", () => {
      choices.set({ sort: id !== column.id ? column.id : turned ? "" : `-${column.id}` });
    });
    cell.append(button);
    if (column.id === "difference") {
      const family = { none: "unpruned", random: "random" }[view.reference] ?? "methods";
      cell.append(element("small", {}, family === "methods" ? "95 %, all pairs at once" : "95 %, all methods at once"));
    }
    if (column.small) cell.append(element("small", {}, column.small));
    // What nothing can be told of is marked once, at its head.
    if (column.untold) cell.append(element("small", { className: "floor", title: column.untold }, column.untold));
    if (column.term && !column.task) {
      const link = element("a", { className: "term", href: `#term-${column.term}` });
      link.setAttribute("aria-label", `What ${column.head} means`);
      // Beside a name of several lines, too.
      const both = element("span", { className: "head" });
      button.replaceWith(both);
      both.append(button, link);
    }
    if (column.drawn && axis) {
      const line = element("div", { className: "axis" });
      // The label of one at the very edge would be cut.
      for (const tick of axis.ticks.filter((own) => axis.place(own) < 96)) line.append(Object.assign(element("span", {}, tick.toFixed(axis.decimals)), { style: `left:${axis.place(tick)}%` }));
      cell.append(element("div", { className: "drawn" }, element("span", {}), line));
    }
    return cell;
  }

  const kindOf = (column) => `c-${column.id.split(":")[0]}${["rank", "won", "flips", "kl", "changed", "p", "gap", "beaten", "stability", "cost", "bytes", "seeds"].includes(column.id) || column.task || column.term === "looping" ? " number" : ""}`;

  function cellOf(view, row, column, axis, at) {
    const cell = element("td", { className: kindOf(column) });
    if (column.id === "score") {
      cell.append(element("div", { className: "drawn" }, element("span", {}, number(row.score)), axis ? dots(view, row, axis, at) : ""));
    } else if (column.id === "difference") {
      if (row.label === view.reference) cell.append(element("span", { className: "quiet" }, "reference"));
      else if (!row.compared) cell.append("–");
      else {
        const said = verdict(view, row.compared);
        const why = row.compared.early ? EARLY : row.compared.tested ? "" : view.board.untested[row.compared.family] ?? view.board.untested.random ?? "";
        const chip = element("span", { className: `chip ${said.kind}`, title: why }, said.text);
        chip.prepend(Object.assign(element("i", {}, said.icon), { ariaHidden: "true" }));
        const interval = row.compared.tested ? element("small", {}, bounds(row.compared.low, row.compared.high)) : "";
        cell.append(element("div", { className: "apart" }, element("b", {}, signed(row.compared.value)), " ", interval, chip));
      }
    } else if (column.id === "won") {
      if (row.won) {
        const link = element("button", { type: "button", className: "drill", title: `Items on which ${nameOf(row.label)} and ${nameOf(view.itemsAgainst)} disagree` }, row.won.join(" : "));
        link.addEventListener("click", () => document.dispatchEvent(new CustomEvent("mbench:drill", {
          detail: { model: view.model.name, retain: view.budget.retain, method: row.names[0],
            reference: view.board.rows.find((own) => own.label === view.itemsAgainst)?.names[0] ?? view.itemsAgainst } })));
        cell.append(link);
      } else cell.append("–");
    } else {
      const text = column.text(row);
      cell.append(text);
      const some = column.task ? partly(view, row, column.head) : undefined;
      for (const line of column.task ? [...(some?.slice(1) ?? []), ...earlyLines(view, row, column.head)] : []) cell.append(element("small", { className: "early" }, line));
      if (column.task && !some && typeof row.tasks[data.tasks.findIndex((task) => `task:${task.name}` === column.id)] === "string") cell.classList.add("failed");
    }
    return cell;
  }

  // ---- controls

  function group(label, options, current, choose) {
    const box = element("span", { className: "seg" });
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label);
    for (const [value, text] of options) {
      const button = element("button", { type: "button" }, text);
      button.setAttribute("aria-pressed", String(value === current));
      button.dataset.focus = `${label} ${value}`;
      button.addEventListener("click", () => choose(value));
      box.append(button);
    }
    return box;
  }

  function select(label, options, current, choose) {
    const list = element("select");
    for (const [value, text] of options) list.append(element("option", { value, selected: value === current }, text));
    list.dataset.focus = label;
    list.setAttribute("aria-label", label);
    list.addEventListener("change", () => choose(list.value));
    return element("label", {}, `${label} `, list);
  }

  function controlsOf(view) {
    const { model, budget, score, board } = view;
    if (!board) return [];
    const models = data.models.length > 1
      ? [group("Model", data.models.map((own) => [own.name, own.name]), model.name, (name) => choices.set({ model: name }))] : [];
    const filter = element("input", { type: "search", id: "filter", placeholder: "Filter methods", size: 14, value: choices.get("filter") });
    filter.setAttribute("aria-label", "Filter methods by name; several words are separated by commas");
    filter.addEventListener("input", () => choices.set({ filter: filter.value }));
    const columns = columnsOf(view);
    const menu = element("details", { className: "menu" }, element("summary", {}, "Columns"));
    const list = element("div");
    for (const column of columns) {
      const on = shownColumns(columns).includes(column);
      const tick = element("input", { type: "checkbox", checked: on });
      tick.dataset.focus = `column ${column.id}`;
      tick.addEventListener("change", () => {
        const asked = new Set(choices.get("columns").split(",").filter(Boolean));
        asked.has(column.id) ? asked.delete(column.id) : asked.add(column.id);
        choices.set({ columns: [...asked].join(",") });
      });
      list.append(element("label", {}, tick, ` ${column.head}${column.small ? `, ${column.small}` : ""}`));
    }
    menu.append(list);
    const downloads = element("details", { className: "menu" }, element("summary", {}, "Download"));
    const kinds = element("div");
    for (const [name, text] of Object.entries({ csv: "CSV", json: "JSON", tex: "LaTeX", md: "Markdown" })) {
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        const files = leaderboardDownloads(ordered(view, columnsOf(view), rowsOf(view)), data.tasks);
        save(files[name](view), `${files.fileName(view)}.${name}`);
      });
      kinds.append(button);
    }
    downloads.append(kinds);
    for (const own of [menu, downloads]) {
      // To the side where there is room.
      own.addEventListener("toggle", () => own.classList.toggle("left", own.getBoundingClientRect().left > innerWidth / 2));
    }
    const reset = element("button", { type: "button", className: "reset" }, "Reset");
    reset.addEventListener("click", () => {
      document.getElementById("filter")?.blur();
      choices.set({ sort: "", filter: "", columns: "" });
    });
    return [
      ...models,
      group("Budget", model.budgets.map((own) => [own.retain, own.pruned]), budget.retain, (retain) => choices.set({ kept: String(retain) })),
      select("compare with", view.references.map((label) => [label, nameOf(label)]), view.reference, (label) => choices.set({ vs: label })),
      select("by", view.scores.map((own) => [own.id, own.name]), score.id, (id) => choices.set({ by: id, sort: "" })),
      filter, menu, downloads, reset,
    ];
  }

  function keyOf(view) {
    if (!view.board) return [];
    const family = { none: "unpruned", random: "random" }[view.reference] ?? "methods";
    const why = view.board.untested[family];
    const known = view.board.rows.reduce((count, row) => count + row.names.length, 0);
    const among = view.board.lacking ? ` among the ${known} of ${known + view.board.lacking} methods that have figures` : "";
    const parts = [why ? `Cannot tell: ${why}.` : "Whiskers: difference to the dashed line.",
      ` Rank: the places that the pairs told apart allow${among}. Unpruned and random have none, and their intervals belong to families of their own.`];
    const few = view.board.units.map(([task, unit, count]) => `${task} ${count} ${unit}`).join(", ");
    const some = Object.keys(view.budget.early).length;
    const early = some ? ` ${EARLY}. Two are told apart where zero is outside. Below a task's figure: its items, half the interval of its difference to unpruned (by itself), and why no more were evaluated.` : "";
    return [parts.join(""), ` ${some ? "What is whole rests" : "Rests"} on: ${few}.`, early];
  }

  if (data.models.length) start();
});
