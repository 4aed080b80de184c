"use strict";
// Tables sort by a click on a header; the table of cases is filtered by row and case.
(() => {
  const report = window.report;

  const keyOf = (line, column, numeric) => {
    const cell = line.cells[column];
    if (numeric) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    return cell.textContent.trim() || null;
  };

  // Empty cells come last in either direction; equal ones keep their order.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number") return sign * (a - b);
    return sign * a.localeCompare(b, "en", { numeric: true });
  };

  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const head = heads[column];
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = head.dataset.type === "number";
    const body = table.tBodies[0];
    const lines = [...body.rows].map((line) => [keyOf(line, column, numeric), line]);
    lines.sort((one, other) => compare(one[0], other[0], ascending ? 1 : -1));
    body.append(...lines.map(([, line]) => line));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => sort(table, column));
      if (head.dataset.type !== "number") return;
      head.classList.add("number");
      for (const line of table.tBodies[0].rows) line.cells[column].classList.add("number");
    });
  }

  const rowFilter = document.getElementById("filter-row");
  const caseFilter = document.getElementById("filter-case");
  report.rows.forEach((name, index) => rowFilter.append(new Option(name, index)));
  report.cases.forEach((one, index) => caseFilter.append(new Option(one.id, index)));
  const lines = [...document.getElementById("case-table").tBodies[0].rows];
  const filter = () => {
    for (const line of lines) {
      line.hidden = (rowFilter.value !== "" && line.dataset.row !== rowFilter.value)
        || (caseFilter.value !== "" && line.dataset.ofCase !== caseFilter.value);
    }
    const count = lines.filter((line) => !line.hidden).length;
    document.getElementById("filter-count").textContent = `${count} of ${lines.length} lines`;
  };
  rowFilter.addEventListener("change", filter);
  caseFilter.addEventListener("change", filter);
  filter();
})();
