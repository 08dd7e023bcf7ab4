// Tables: sorting, hiding of columns, filtering of rows, and downloads of what is shown.
// Rows of class `pinned` stay on top, those of class `summary` at the end.
"use strict";

class DataTable {
  constructor(table, changed) {
    this.table = table;
    this.changed = changed;
    this.heads = [...table.tHead.rows[0].cells];
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.labels = this.heads.map((head) =>
      [...head.querySelectorAll("span, small")].map((part) => part.textContent).join(", ") || head.textContent);
    this.hidden = new Set();
    this.sort = 0;
    this.heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      const label = head.querySelector("span");
      button.append(...(label ? [label] : head.childNodes));
      head.prepend(button);
      button.addEventListener("click", () => {
        const next = Math.abs(this.sort) !== column + 1 ? column + 1 : this.sort > 0 ? -this.sort : 0;
        this.changed(`${table.id}.sort`, next || "");
      });
    });
    this.addTools();
  }

  // Columns and downloads, folded above the table.
  addTools() {
    const tools = document.createElement("details");
    tools.className = "tools";
    tools.innerHTML = "<summary>Columns and downloads</summary><div></div><p></p>";
    const [boxes, buttons] = [tools.querySelector("div"), tools.querySelector("p")];
    this.boxes = this.labels.map((text, column) => {
      const [label, box] = [document.createElement("label"), document.createElement("input")];
      box.type = "checkbox";
      box.addEventListener("change", () => {
        box.checked ? this.hidden.delete(column) : this.hidden.add(column);
        this.changed(`${this.table.id}.hide`, [...this.hidden].sort((a, b) => a - b).join("."));
      });
      label.append(box, text);
      if (column) boxes.append(label);
      return box;
    });
    for (const [name, type, write] of FORMATS) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => save(
        new Blob([write(this.view(), this.table.caption.textContent.trim())], { type }),
        `${this.table.id}.${EXTENSIONS[name]}`));
      buttons.append(button, " ");
    }
    this.table.parentElement.before(tools);
  }

  // `state` has what the reader chose, `metric` the name of the metric to show in place of the
  // declared one, `wanted` says which rows stay.
  apply(state, metric, wanted) {
    this.hidden = new Set((state.get(`${this.table.id}.hide`) || "").split(".").filter(Boolean).map(Number));
    const sort = Number(state.get(`${this.table.id}.sort`)) || 0;
    this.sort = Math.abs(sort) <= this.heads.length ? sort : 0;
    const sorted = this.rows.filter((row) => !row.matches(".pinned, .summary"));
    if (this.sort) {
      const [column, sign] = [Math.abs(this.sort) - 1, Math.sign(this.sort)];
      sorted.sort((a, b) => compare(a.cells[column], b.cells[column], sign));
    }
    this.heads.forEach((head, column) => {
      if (Math.abs(this.sort) === column + 1) {
        head.setAttribute("aria-sort", this.sort > 0 ? "ascending" : "descending");
      } else head.removeAttribute("aria-sort");
    });
    this.body.append(...this.rows.filter((row) => row.matches(".pinned")), ...sorted,
      ...this.rows.filter((row) => row.matches(".summary")));
    const shown = this.heads.map((head, column) => !this.hidden.has(column) && this.hasMetric(head, metric));
    this.boxes.forEach((box, column) => {
      box.checked = !this.hidden.has(column);
      box.parentElement.hidden = !this.hasMetric(this.heads[column], metric);
    });
    for (const row of [this.table.tHead.rows[0], ...this.rows]) {
      const cells = [...row.cells];
      if (cells.some((cell) => cell.colSpan > 1 || cell.dataset.wide)) {
        cells[1].dataset.wide = "1";
        cells[1].colSpan = Math.max(1, shown.slice(1).filter(Boolean).length);
      } else cells.forEach((cell, column) => { cell.hidden = !shown[column]; });
    }
    if ("methods" in this.table.dataset) {
      for (const row of this.rows) {
        row.hidden = !row.matches(".pinned") && !wanted(row.cells[0].textContent);
      }
    }
  }

  // Of the columns of one task, the chosen metric's, or the declared one's where a task lacks it.
  hasMetric(head, metric) {
    const { task, metric: own } = head.dataset;
    if (!task) return true;
    const has = this.heads.some((other) => other.dataset.task === task && other.dataset.metric === metric);
    return has ? own === metric : "declared" in head.dataset;
  }

  // What is on the screen, row by row.
  view() {
    const columns = this.heads.map((_, column) => column).filter((column) => !this.heads[column].hidden);
    const rows = [...this.body.rows].filter((row) => !row.hidden);
    return {
      heads: columns.map((column) => this.labels[column]),
      rows: rows.map((row) => columns.map((column) => content(row.cells[column]))),
    };
  }
}

// The figure at full precision where there is one, and the text with its first small line.
function content(cell) {
  if (!cell) return { text: "", detail: "", number: null, bold: false };
  const details = [...cell.querySelectorAll("small")].map((line) => line.textContent);
  const whole = cell.cloneNode(true);
  whole.querySelectorAll("small").forEach((line) => line.remove());
  return {
    text: whole.textContent.trim(),
    detail: details.find((line) => line.startsWith("±")) || "",
    number: cell.dataset.sort === undefined ? null : Number(cell.dataset.sort),
    bold: cell.matches("td.best, td.real"),
  };
}

// Numbers before words; what has neither comes last in both directions.
function compare(first, second, sign) {
  const [a, b] = [first, second].map((cell) =>
    cell?.dataset.sort === undefined ? NaN : Number(cell.dataset.sort));
  if (!Number.isNaN(a) && !Number.isNaN(b)) return sign * (a - b) || 0;
  if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
  return sign * (first?.textContent ?? "").localeCompare(second?.textContent ?? "", "en");
}

function csv({ heads, rows }) {
  const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = rows.map((row) => row.map(({ number, text }) => number === null ? text : String(number)));
  return [heads, ...lines].map((line) => line.map(quote).join(",")).join("\n") + "\n";
}

function json({ heads, rows }, caption) {
  const values = rows.map((row) => Object.fromEntries(
    row.map(({ number, text }, column) => [heads[column], number === null ? text : number])));
  return JSON.stringify({ caption, rows: values }, null, 1) + "\n";
}

// A booktabs table; figures as the page shows them, with their standard error.
function latex({ heads, rows }, caption) {
  const names = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$",
    "±": "$\\pm$", "↓": "$\\downarrow$", "∞": "$\\infty$", "–": "--", "\u00a0": "~",
  };
  const escape = (text) => text.replace(/[&%$#_{}]/g, "\\$&".replace("\\", "\u0000"))
    .replace(/[\\~^−±↓∞–\u00a0]/g, (sign) => names[sign]).replaceAll("\u0000", "\\");
  const cell = ({ text, detail, bold }) => {
    const own = bold ? `\\textbf{${escape(text)}}` : escape(text);
    return detail ? `${own} {\\scriptsize ${escape(detail)}}` : own;
  };
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  return [
    "% needs \\usepackage{booktabs}", "\\begin{table}", `\\caption{${escape(caption)}}`,
    `\\begin{tabular}{l${"r".repeat(heads.length - 1)}}`, "\\toprule", line(heads.map(escape)),
    "\\midrule", ...rows.map((row) => line(row.map(cell))), "\\bottomrule", "\\end{tabular}",
    "\\end{table}", "",
  ].join("\n");
}

const FORMATS = [["CSV", "text/csv", csv], ["JSON", "application/json", json], ["LaTeX", "text/plain", latex]];
const EXTENSIONS = { CSV: "csv", JSON: "json", LaTeX: "tex" };

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
