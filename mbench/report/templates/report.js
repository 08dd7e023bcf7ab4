// Sorting by a click on a column's head, and a method's marks brought out from the legend.
// The page says the same without this.
"use strict";

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].filter((row) => !row.matches(".pinned, .summary"));
      const summaries = [...body.rows].filter((row) => row.matches(".summary"));
      rows.sort((a, b) => compare(a.cells[column], b.cells[column], rising ? 1 : -1));
      body.append(...rows, ...summaries);
    });
  });
}

// Numbers before words; what has neither comes last in both directions.
function compare(first, second, sign) {
  const [a, b] = [first, second].map((cell) =>
    cell?.dataset.sort === undefined ? NaN : Number(cell.dataset.sort));
  if (!Number.isNaN(a) && !Number.isNaN(b)) return sign * (a - b) || 0;
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return sign * (first?.textContent ?? "").localeCompare(second?.textContent ?? "", "en");
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
