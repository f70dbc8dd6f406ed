// Sort the table of genes by a click on a heading, and filter it by name.  Cells carry their number in data-v.
"use strict";
const table = document.getElementById("genes-table");
const body = table.tBodies[0];
const value = (row, column) => {
  const cell = row.cells[column];
  return "v" in cell.dataset ? parseFloat(cell.dataset.v) : cell.textContent;
};
const known = (v) => typeof v === "string" || !Number.isNaN(v);
table.querySelectorAll("th button").forEach((button, column) => {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const first = column === 0 ? "ascending" : "descending"; // names from A, numbers from the highest
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = Array.from(body.rows).sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (!known(x) || !known(y)) return known(y) - known(x); // what is not known comes last
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
    body.append(...rows);
  });
});
document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toUpperCase();
  for (const row of body.rows) row.hidden = !row.cells[0].textContent.toUpperCase().includes(wanted);
});
