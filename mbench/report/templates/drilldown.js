// The items on which two methods disagree. Their texts lie in files beside the page, which are
// loaded when a reader asks for them (see item_files.py); the page is complete without them.
"use strict";

boards.then((data) => {
  const STEP = 20;
  const section = document.getElementById("drill");
  const nameOf = (method) => (method === "none" ? "unpruned" : method);
  const loaded = new Map();
  window.mbenchItems = (content) => loaded.set(content.task, content);

  function make(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  function load(task) {
    if (loaded.has(task.name)) return Promise.resolve(loaded.get(task.name));
    return new Promise((done) => {
      const script = make("script", { src: task.file });
      script.addEventListener("load", () => done(loaded.get(task.name) ?? null));
      script.addEventListener("error", () => done(null));
      document.head.append(script);
    });
  }

  // What both masks did on the items that both have, where one is right and the other is not.
  function disagreements(content, first, second) {
    const [one, other] = [first, second].map((name) => content.outcomes[name]);
    if (!one || !other) return null;
    const places = new Map(other.items.map((item, at) => [item, at]));
    const texts = new Map(content.items.map((item, at) => [item, at]));
    const found = [];
    one.items.forEach((item, at) => {
      const there = places.get(item);
      if (there === undefined || one.values[at] === other.values[there]) return;
      if (one.values[at] === null || other.values[there] === null) return;
      const text = texts.get(item);
      found.push({
        task: content.task, item, won: one.values[at] > other.values[there],
        prompt: text === undefined ? "" : content.prompts[text],
        choices: text === undefined ? [] : content.choices[text],
        truth: text === undefined ? "" : content.truth[text],
        values: [one.values[at], other.values[there]],
        logs: [one.logs?.[at], other.logs?.[there]], answers: [one.answers?.[at], other.answers?.[there]],
      });
    });
    return found;
  }

  async function open({ model, retain, method, reference }, focus = true) {
    choices.set({ drill: method, against: reference });
    section.hidden = false;
    section.replaceChildren(make("p", { className: "quiet" }, "Loading…"));
    const masks = data.masks[model] ?? {};
    const of = (name) => masks[`${name} ${name === "none" ? "1.0" : pythonNumber(retain)}`] ?? [];
    const [first, second] = [of(method)[0], of(reference)[0]];
    const scored = data.scores[0].tasks;
    const tasks = data.tasks.filter((task) => task.file && scored.includes(task.name));
    const contents = await Promise.all(tasks.map(load));
    const missing = tasks.filter((task, at) => !contents[at] || !disagreements(contents[at], first?.[1], second?.[1]));
    const found = contents.flatMap((content) => (content && disagreements(content, first?.[1], second?.[1])) || []);
    // Of several masks, as a link may ask for, the items of the first are shown.
    const named = (name) => nameOf(name) + (of(name).length > 1 ? `, seed ${of(name)[0][0]}` : "");
    show({ mine: named(method), theirs: named(reference), found, missing, tasks });
    if (focus) {
      section.focus({ preventScroll: true });
      section.scrollIntoView({ behavior: "smooth", block: "start" });
    }
  }

  // Ratios are written as Python does: 1.0, 0.5.
  const pythonNumber = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

  function show({ mine, theirs, found, missing, tasks }) {
    let [task, words, count] = ["", "", STEP];
    const won = found.filter((own) => own.won).length;
    const close = make("button", { type: "button" }, "Close ✕");
    close.addEventListener("click", () => {
      section.hidden = true;
      section.replaceChildren();
      choices.set({ drill: "", against: "" });
      document.querySelector("#lb .drill")?.focus();
    });
    const head = make("div", { className: "drill-head" },
      make("h2", {}, `${mine} against ${theirs}`, make("small", {}, ` they disagree on ${found.length.toLocaleString("en")} items`)), close);
    const bar = make("div", { className: "drill-bar" });
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", `only ${mine} right: ${won}, only ${theirs} right: ${found.length - won}`);
    for (const [name, side, kind] of [[mine, won, "first"], [theirs, found.length - won, "second"]]) {
      const part = make("div", { className: kind }, make("span", {}, `only ${name} right`), make("b", {}, String(side)));
      part.style.flex = `${Math.max(side, 0.15 * found.length)} 1 0`;
      bar.append(part);
    }
    const list = make("div", { className: "drill-items" });
    const more = make("button", { type: "button" }, "Show more");
    const status = make("p", { className: "key" });
    status.setAttribute("role", "status");
    const search = make("input", { type: "search", placeholder: "Search prompts and choices" });
    search.setAttribute("aria-label", "Search prompts and choices");
    const tabs = make("span", { className: "seg" });
    tabs.setAttribute("role", "group");
    tabs.setAttribute("aria-label", "Task");
    for (const own of ["", ...tasks.filter((each) => !missing.includes(each)).map((each) => each.name)]) {
      const here = found.filter((each) => !own || each.task === own);
      const wins = here.filter((each) => each.won).length;
      const button = make("button", { type: "button" }, own ? `${own} ${wins} : ${here.length - wins}` : `all ${here.length}`);
      button.setAttribute("aria-pressed", String(own === task));
      button.addEventListener("click", () => {
        [task, count] = [own, STEP];
        for (const each of tabs.children) each.setAttribute("aria-pressed", String(each === button));
        draw();
      });
      tabs.append(button);
    }
    search.addEventListener("input", () => { [words, count] = [search.value.toLowerCase(), STEP]; draw(); });
    more.addEventListener("click", () => { count += STEP; draw(); });
    function draw() {
      const wanted = found.filter((own) => (!task || own.task === task)
        && (!words || [own.prompt, ...own.choices, ...own.answers].join("\n").toLowerCase().includes(words)));
      list.replaceChildren(...wanted.slice(0, count).map((own) => itemOf(own, mine, theirs)));
      more.hidden = wanted.length <= count;
      status.textContent = `${Math.min(count, wanted.length)} of ${wanted.length} shown. Boxed: the method's answer. ✓ the true one.`;
    }
    const notes = missing.length ? make("p", { className: "key" },
      `The items of ${missing.map((own) => own.name).join(", ")} are not at hand: their files are not beside this page, or the suite does not publish them.`) : "";
    section.replaceChildren(head, found.length ? bar : "", make("div", { className: "controls" }, tabs, search), notes, list, more, status);
    draw();
  }

  function itemOf(own, mine, theirs) {
    const [, place] = /^(?:.*\/)?(\d+):/.exec(own.item) ?? [];
    const head = make("header", {}, make("b", {}, own.task), ` item ${place ?? own.item}`,
      make("span", {}, "only ", make("b", {}, own.won ? mine : theirs), " right"));
    const article = make("article", {}, head, make("p", { className: "prompt" }, own.prompt || "(no text at hand)"));
    if (own.choices.length && own.logs.every((logs) => logs?.length === own.choices.length)) {
      const table = make("table");
      table.createTHead().insertRow().append(...["choice", mine, theirs].map((text) => make("th", { scope: "col" }, text)));
      const body = table.createTBody();
      // Whether an answer is right is the task's own word: with acc_norm it is not the highest log-likelihood.
      own.choices.forEach((choice, at) => {
        const line = body.insertRow();
        const right = at === own.truth;
        line.append(make("th", { scope: "row", className: right ? "truth" : "" }, right ? "✓ " : "", choice));
        own.logs.forEach((logs) => {
          const top = at === logs.indexOf(Math.max(...logs));
          line.append(make("td", { className: top ? (right ? "pick right" : "pick") : "" }, logs[at].toFixed(1).replace("-", "−")));
        });
      });
      article.append(table);
    } else {
      article.append(make("p", { className: "key" }, `true answer: ${own.choices[own.truth] ?? own.truth}`),
        make("div", { className: "side-by-side" }, ...[mine, theirs].map((name, at) =>
          make("div", {}, make("b", {}, name), make("pre", {}, own.answers[at] ?? String(own.values[at]))))));
    }
    return article;
  }

  document.addEventListener("mbench:drill", (event) => open(event.detail));

  // A link to two methods opens their items.
  const [method, reference] = [choices.get("drill"), choices.get("against")];
  const model = data.models.find((own) => own.name === choices.get("model")) ?? data.models[0];
  if (method && reference && model) {
    const budget = model.budgets.find((own) => String(own.retain) === choices.get("kept"))
      ?? model.budgets[Math.floor(model.budgets.length / 2)];
    open({ model: model.name, retain: budget.retain, method, reference }, false);
  }
});
