// The reader's choices are kept in the address, after "?" in its fragment; before it stands a place
// on the page, whose tab is shown. Also here: themes, definitions in place, charts as pictures.
// The page is complete without scripts.
"use strict";

const choices = {
  state: new URLSearchParams(location.hash.split("?")[1] ?? ""),
  place: location.hash.slice(1).split("?")[0],
  listeners: [],
  get(name) { return this.state.get(name) ?? ""; },
  // Remember choices, tell everybody, and write the address.
  set(changes) {
    for (const [name, value] of Object.entries(changes)) {
      value === "" || value === null ? this.state.delete(name) : this.state.set(name, value);
    }
    this.write();
    this.listeners.forEach((listener) => listener());
  },
  write() {
    const text = this.state.toString();
    history.replaceState(null, "", text || this.place ? `#${this.place}${text ? `?${text}` : ""}` : location.pathname);
  },
};

function save(content, name, type = "text/plain") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

{
  const tabs = [...document.querySelectorAll(".tab")];

  // Show the tab that holds an element, or the first one.
  function open(target) {
    const shown = target?.closest(".tab") ?? tabs[0];
    for (const tab of tabs) tab.toggleAttribute("hidden", tab !== shown);
    for (const link of document.querySelectorAll("nav a[data-tab]")) {
      link.dataset.tab === shown?.id ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    }
  }

  // A fragment without choices, as in the page's own links, keeps the choices.
  function arrive() {
    choices.place = location.hash.slice(1).split("?")[0];
    if (location.hash.includes("?")) {
      choices.state = new URLSearchParams(location.hash.split("?")[1]);
      choices.listeners.forEach((listener) => listener());
    } else if (choices.state.size) choices.write();
    const target = choices.place && document.getElementById(choices.place);
    if (tabs.length) open(target || null);
    if (!target || target.matches(".tab")) return scrollTo(0, 0);
    for (let folded = target.closest("details"); folded; folded = folded.parentElement.closest("details")) {
      folded.open = true;
    }
    target.scrollIntoView();
  }

  // A table costs tens of milliseconds: it waits until it is nearly visible, or the page is printed.
  const tables = [];
  const apply = () => tables.forEach((table) => table(choices.state));
  choices.listeners.push(apply);
  function begin() {
    addEventListener("hashchange", arrive);
    if (choices.place) arrive();
    else open(null);
    // Tests and `mbench view` wait for the leaderboard too.
    Promise.resolve(typeof boards === "undefined" ? null : boards)
      .then(() => { document.documentElement.dataset.ready = ""; });
  }
  loadDataTables().then((DataTable) => {
    const waiting = new Set(document.querySelectorAll(".scroll:has(> table)"));
    const enter = (box) => {
      near.unobserve(box);
      waiting.delete(box);
      if (!box.isConnected) return;
      const table = enhance(DataTable, box.querySelector("table"), (name, value) => choices.set({ [name]: value }));
      table(choices.state);
      tables.push(table);
    };
    const near = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => enter(target)),
      { rootMargin: "600px" });
    addEventListener("beforeprint", () => waiting.forEach(enter));
    begin();
    waiting.forEach((box) => near.observe(box));
  }, (error) => {
    // Charts and links work without it.
    console.error(error);
    begin();
  });

  // Light or dark as in the system, until the reader chooses.
  const theme = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const remember = (access) => { try { return access(localStorage); } catch { return null; } };
  const show = () => theme?.setAttribute("aria-pressed", String(dark()));
  root.dataset.theme = remember((store) => store.getItem("mbench-theme")) ?? "";
  if (!["light", "dark"].includes(root.dataset.theme)) delete root.dataset.theme;
  theme?.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remember((store) => store.setItem("mbench-theme", root.dataset.theme));
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();

  // Every figure is in the page too, so that it can be saved from a copy without its folder.
  document.getElementById("csv")?.addEventListener("click", (event) => {
    event.preventDefault();
    unpack("csv-text").then((content) => save(content, "results.csv", "text/csv"));
  });

  // A term's definition beside the link to it.
  const box = document.getElementById("definition");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.term");
    const term = link && box && document.getElementById(link.hash.slice(1));
    if (!term) return;
    event.preventDefault();
    box.replaceChildren(...[...term.children].map((part) => {
      const copy = document.createElement(part.tagName === "DT" ? "strong" : "p");
      copy.append(...part.cloneNode(true).childNodes);
      return copy;
    }));
    box.showPopover();
    const place = link.getBoundingClientRect();
    box.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8))}px`;
    const below = place.bottom + 6;
    const fits = below + box.offsetHeight < innerHeight;
    box.style.top = `${fits ? below : Math.max(8, place.top - box.offsetHeight - 6)}px`;
    box.focus();
  });

  // A chart as SVG or PNG: its computed style goes into a copy, under its title and above its legend.
  const LOOK = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "paint-order",
    "font-size", "font-family", "text-anchor", "display"];
  const SVG = "http://www.w3.org/2000/svg";
  function text(content, y, size) {
    const element = document.createElementNS(SVG, "text");
    element.textContent = content;
    for (const [name, value] of Object.entries({ x: 8, y, "font-size": size, "font-family": "sans-serif" })) {
      element.setAttribute(name, value);
    }
    element.setAttribute("fill", getComputedStyle(document.body).color);
    return element;
  }
  function standing(chart) {
    const copy = chart.cloneNode(true);
    const [drawn, copied] = [chart, copy].map((svg) => [svg, ...svg.querySelectorAll("*")]);
    drawn.forEach((element, index) => {
      const style = getComputedStyle(element);
      for (const name of LOOK) copied[index].style.setProperty(name, style.getPropertyValue(name));
    });
    const { x, y, width, height } = chart.viewBox.baseVal;
    const figure = chart.closest("figure");
    const caption = figure?.querySelector("figcaption")?.textContent.trim() ?? "";
    const legend = [...(figure?.parentElement.querySelectorAll(".legend li") ?? [])].map((item) => ({
      label: item.textContent.trim(), mark: item.querySelector("svg") }));
    copy.setAttribute("xmlns", SVG);
    copy.setAttribute("viewBox", `${x} ${y - 22} ${width} ${height + 26 + 14 * Math.ceil(legend.length / 3)}`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height + 26 + 14 * Math.ceil(legend.length / 3));
    copy.append(text(caption, y - 8, 11));
    legend.forEach(({ label, mark }, index) => {
      const line = text(label, y + height + 14 * (1 + Math.floor(index / 3)), 9);
      line.setAttribute("x", x + 18 + (index % 3) * width / 3);
      if (mark) {
        const sign = mark.cloneNode(true);
        [...mark.querySelectorAll("*")].forEach((part, at) => {
          const style = getComputedStyle(part);
          for (const name of LOOK) sign.querySelectorAll("*")[at].style.setProperty(name, style.getPropertyValue(name));
        });
        for (const [name, value] of Object.entries({ x: x + 6 + (index % 3) * width / 3,
          y: y + height + 14 * (1 + Math.floor(index / 3)) - 8, width: 9, height: 9 })) sign.setAttribute(name, value);
        copy.append(sign);
      }
      copy.append(line);
    });
    return copy;
  }
  async function picture(copy) {
    const image = new Image();
    image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * copy.getAttribute("width"), 2 * copy.getAttribute("height")];
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done));
  }
  const file = (chart) => chart.querySelector("title").textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 80);
  for (const chart of document.querySelectorAll("svg.chart")) {
    const buttons = document.createElement("span");
    buttons.className = "pictures-of";
    for (const kind of ["PNG", "SVG"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = kind;
      button.setAttribute("aria-label", `Download as ${kind}: ${chart.querySelector("title").textContent}`);
      button.addEventListener("click", async () => {
        const copy = standing(chart);
        const content = kind === "SVG" ? new XMLSerializer().serializeToString(copy) : await picture(copy);
        save(content, `${file(chart)}.${kind.toLowerCase()}`, "image/svg+xml");
      });
      buttons.append(button);
    }
    chart.before(buttons);
  }

  for (const item of document.querySelectorAll(".legend [data-method]")) {
    const section = item.closest("section");
    const mark = (on) => {
      for (const series of section.querySelectorAll(".series")) {
        series.classList.toggle("faint", on && series.dataset.method !== item.dataset.method);
      }
    };
    item.tabIndex = 0;
    item.addEventListener("pointerenter", () => mark(true));
    item.addEventListener("pointerleave", () => mark(false));
    item.addEventListener("focus", () => mark(true));
    item.addEventListener("blur", () => mark(false));
  }
}
