// The reader's choices are kept in the address, after "?" in its fragment. Also here: themes,
// definitions in place, charts as PNG, and highlighting of a method from the legend.
// The page is complete without scripts.
"use strict";

{
  const read = () => new URLSearchParams(location.hash.split("?")[1] ?? "");
  let state = read();
  let words = [];
  const wanted = (name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
  const tables = [];
  // Pages of one table have none of the controls.
  const controls = document.querySelector(".controls");
  const filter = document.getElementById("filter");
  const metric = document.getElementById("metric");
  const heads = document.querySelectorAll(".budget > .scroll > table tbody tr:not(.pinned) th");
  const methods = [...new Set([...heads].map((head) => head.firstChild.textContent))];

  function record(name, value) {
    value === "" ? state.delete(name) : state.set(name, value);
    write(location.hash.slice(1).split("?")[0]);
  }

  function choose(name, value) {
    record(name, value);
    apply();
  }

  function write(place) {
    const text = state.toString();
    history.replaceState(null, "", text || place ? `#${place}${text ? `?${text}` : ""}` : location.pathname);
  }

  function apply() {
    const text = state.get("filter") ?? "";
    words = text.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    tables.forEach((table) => table(state));
    if (!controls) return;
    if (filter.value !== text) filter.value = text;
    const names = [...metric.options].map((option) => option.value);
    metric.value = names.includes(state.get("metric")) ? state.get("metric") : "";
    for (const element of document.querySelectorAll("[data-method]")) {
      if (!element.closest("[id$=-agreement]")) element.toggleAttribute("hidden", !wanted(element.dataset.method));
    }
    const count = methods.filter(wanted).length;
    document.getElementById("filtered").textContent = words.length ? `${count} of ${methods.length} shown` : "";
    // The columns that change are in folded sections.
    if (metric.value) document.querySelectorAll("details:has(th[data-metric])").forEach((d) => { d.open = true; });
  }

  // A fragment without choices, as in the page's own links, keeps the choices.
  function arrive() {
    const place = location.hash.slice(1).split("?")[0];
    if (location.hash.includes("?")) state = read();
    else if (state.size) write(place);
    apply();
    const target = place && document.getElementById(place);
    if (!target) return;
    for (let folded = target.closest("details"); folded; folded = folded.parentElement.closest("details")) {
      folded.open = true;
    }
    target.scrollIntoView();
  }

  function begin() {
    filter?.addEventListener("input", () => choose("filter", filter.value));
    metric?.addEventListener("change", () => choose("metric", metric.value));
    addEventListener("hashchange", arrive);
    if (controls) controls.hidden = false;
    arrive();
  }

  // A table costs tens of milliseconds: it waits until it is nearly visible, or the page is printed.
  loadDataTables().then((DataTable) => {
    const enter = (box) => {
      near.unobserve(box);
      const table = enhance(DataTable, box.querySelector("table"), record, wanted);
      table(state);
      tables.push(table);
      waiting.delete(box);
    };
    const waiting = new Set(document.querySelectorAll(".scroll:has(> table)"));
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

  // A term's definition beside the link to it.
  const box = document.getElementById("definition");
  for (const link of document.querySelectorAll("a.term")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const term = document.getElementById(link.hash.slice(1));
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
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // A chart as PNG: its computed style goes into a copy, which a canvas draws at twice the size.
  const LOOK = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "paint-order",
    "font-size", "font-family", "text-anchor", "display"];
  for (const chart of document.querySelectorAll("svg.chart")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "png";
    button.textContent = "PNG";
    button.setAttribute("aria-label", `Download as PNG: ${chart.querySelector("title").textContent}`);
    button.addEventListener("click", async () => {
      const copy = chart.cloneNode(true);
      const [drawn, copied] = [chart, copy].map((svg) => [svg, ...svg.querySelectorAll("*")]);
      drawn.forEach((element, index) => {
        const style = getComputedStyle(element);
        for (const name of LOOK) copied[index].style.setProperty(name, style.getPropertyValue(name));
      });
      const { width, height } = chart.viewBox.baseVal;
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.setAttribute("width", 2 * width);
      copy.setAttribute("height", 2 * height);
      const image = new Image();
      image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
      await image.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * width, 2 * height];
      const context = canvas.getContext("2d");
      context.fillStyle = getComputedStyle(document.body).backgroundColor;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0);
      canvas.toBlob((blob) => save(blob, `${chart.id}.png`));
    });
    chart.before(button);
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
