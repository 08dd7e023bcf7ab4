// Tables are sorted, filtered and exported by DataTables; this is our configuration of it.
// Rows of class `pinned` stay on top, those of class `summary` at the end.
"use strict";

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function loadDataTables() {
  const [script, style] = await Promise.all(["tables-script", "tables-style"].map(unpack));
  // In a layer, so that any rule of the page's own wins.
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`@layer library { ${style} }`);
  document.adoptedStyleSheets.push(sheet);
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { default: DataTable } = await import(address);
  DataTable.ext.errMode = "throw";
  DataTable.ext.order.cell = (settings, column) => {
    const api = new DataTable.Api(settings);
    const rows = api.rows({ order: "index" }).nodes();
    return api.column(column, { order: "index" }).nodes().toArray().map((cell, row) => rankOf(rows[row], cell));
  };
  DataTable.type("cell", { order: { asc: (a, b) => compare(a, b, 1), desc: (a, b) => compare(a, b, -1) } });
  return DataTable;
}

// Where a cell stands in the order of its column; pinned rows and summaries keep their own.
function rankOf(row, cell) {
  const place = row.matches(".pinned") ? 0 : row.matches(".summary") ? 2 : 1;
  const number = cell.dataset.sort === undefined || place !== 1 ? NaN : Number(cell.dataset.sort);
  return { place, number, text: Number.isNaN(number) && place === 1 ? cell.textContent.trim() : "" };
}

// Numbers before words; what has neither comes last in both directions.
function compare(a, b, sign) {
  return a.place - b.place || Number.isNaN(a.number) - Number.isNaN(b.number)
    || sign * (a.number - b.number || a.text.localeCompare(b.text, "en"));
}

// `changed` receives the reader's choices, as a name and a value in the address. Returns a function that applies the choices in the address.
function enhance(DataTable, table, changed) {
  const heads = [...table.tHead.rows[0].cells];
  const labels = new Map(heads.map((head) => [head,
    [...head.querySelectorAll("span, small")].map((part) => part.textContent).join(", ") || head.textContent]));
  let [hidden, applying] = [new Set(), false];
  const shown = heads.map(() => true);
  const api = new DataTable(table, {
    paging: false, info: false, autoWidth: false, layout: { topStart: null, topEnd: null },
    order: [], orderMulti: false, orderClasses: false, orderDescReverse: false, ordering: { handler: false },
    columns: heads.map((head) => ({ type: "cell", orderDataType: "cell", searchable: false, ariaTitle: labels.get(head) })),
    language: { zeroRecords: "No such method" },
  });
  for (const [column, head] of heads.entries()) {
    // Not on the whole head, which holds the link to the definition.
    const button = head.querySelector(".dt-column-order");
    api.order.listener(button, column);
    button.addEventListener("keydown", (event) => {
      if (event.key !== " ") return;
      event.preventDefault();
      button.click();
    });
  }
  const tools = document.createElement("details");
  tools.className = "tools";
  tools.innerHTML = "<summary>Columns and downloads</summary>";
  tools.addEventListener("toggle", () => {
    const buttons = [...toggles(DataTable, labels), ...downloads(DataTable, table, labels)];
    tools.append(new DataTable.Buttons(api, { buttons }).container()[0]);
    mark();
  }, { once: true });
  table.closest(".scroll").before(tools);

  api.on("order", () => {
    const [[column, direction] = []] = api.order();
    if (!applying) changed(`${table.id}.sort`, direction ? `${direction === "asc" ? "" : "-"}${column + 1}` : "");
  });
  api.on("column-visibility", (event, settings, column, visible) => {
    if (applying) return;
    shown[column] = visible;
    visible ? hidden.delete(column) : hidden.add(column);
    changed(`${table.id}.hide`, [...hidden].sort((a, b) => a - b).join("."));
    mark();
  });

  // Which columns the reader may show, and which are shown.
  function mark() {
    if (!tools.querySelector(".dt-buttons")) return;
    for (const column of heads.keys()) {
      api.button(`${column}:name`).node().attr("aria-pressed", shown[column]);
    }
  }

  return (state) => {
    applying = true;
    hidden = new Set((state.get(`${table.id}.hide`) ?? "").split(".").map(Number).filter((column) => column && heads[column]));
    for (const column of heads.keys()) {
      const visible = !hidden.has(column);
      if (visible !== shown[column]) api.column(column).visible(shown[column] = visible, false);
    }
    const sort = Number(state.get(`${table.id}.sort`));
    const column = Math.abs(sort) - 1;
    api.order(heads[column] ? [[column, sort > 0 ? "asc" : "desc"]] : []).draw();
    mark();
    applying = false;
  };
}

// Buttons take their text as markup.
function toggles(DataTable, labels) {
  return [...labels.values()].slice(1).map((label, index) => ({
    extend: "columnToggle", columns: index + 1, name: String(index + 1),
    columnText: () => DataTable.util.escapeHtml(label),
  }));
}

// Each saves what is shown, with figures at full precision.
function downloads(DataTable, table, labels) {
  const options = (body) => ({
    columns: ":visible",
    format: { header: (title, column, head) => labels.get(head), body: (html, row, column, cell) => body(content(cell)) },
  });
  const written = (text, extension, write) => ({
    text,
    action: (event, api) => {
      const { header, body } = api.buttons.exportData(options((cell) => cell));
      const blob = new Blob([write(header, body, table.caption.textContent.trim())], { type: "text/plain" });
      DataTable.fileSave(blob, `${table.id}.${extension}`, true);
    },
  });
  return [
    { extend: "csvHtml5", text: "CSV", title: null, filename: table.id,
      exportOptions: options(({ number, text }) => Number.isFinite(number) ? String(number) : text) },
    written("JSON", "json", json),
    written("LaTeX", "tex", latex),
  ];
}

// The figure at full precision where there is one, and the text with its first small line.
function content(cell) {
  const details = [...cell.querySelectorAll("small")].map((line) => line.textContent);
  const whole = cell.cloneNode(true);
  whole.querySelectorAll("small").forEach((line) => line.remove());
  return {
    text: whole.textContent.trim().replace(/[ \n]+/g, " "),
    detail: details.find((line) => /^[±[]/.test(line)) ?? "",
    number: cell.dataset.sort === undefined ? null : Number(cell.dataset.sort),
    significant: cell.matches(".significant"),
  };
}

function json(header, body, caption) {
  const rows = body.map((row) => Object.fromEntries(
    row.map(({ number, text }, column) => [header[column], Number.isFinite(number) ? number : text])));
  return JSON.stringify({ caption, rows }, null, 1) + "\n";
}

// A booktabs table; figures as the page shows them, with their standard error.
function latex(header, body, caption) {
  const names = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$",
    "±": "$\\pm$", "↓": "$\\downarrow$", "∞": "$\\infty$", "–": "--", "\u00a0": "~",
  };
  const escape = (text) => text.replace(/[&%$#_{}]/g, "\\$&".replace("\\", "\u0000"))
    .replace(/[\\~^−±↓∞–\u00a0]/g, (sign) => names[sign]).replaceAll("\u0000", "\\");
  const cell = ({ text, detail, significant }) => {
    const figure = significant ? `\\textbf{${escape(text)}}` : escape(text);
    return detail ? `${figure} {\\scriptsize ${escape(detail)}}` : figure;
  };
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  return [
    "% needs \\usepackage{booktabs}", "\\begin{table}", `\\caption{${escape(caption)}}`,
    `\\begin{tabular}{l${"r".repeat(header.length - 1)}}`, "\\toprule", line(header.map(escape)),
    "\\midrule", ...body.map((row) => line(row.map(cell))), "\\bottomrule", "\\end{tabular}",
    "\\end{table}", "",
  ].join("\n");
}
