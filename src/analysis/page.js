"use strict";
// Headings become buttons that sort their table; without this script they are plain text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const first = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    const label = head.firstElementChild;
    button.append(...label.childNodes);
    label.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const other = { ascending: "descending", descending: "ascending" };
      const order = other[head.getAttribute("aria-sort")] || head.dataset.first;
      heads.forEach((one) => one.setAttribute("aria-sort", one === head ? order : "none"));
      body.append(...first.slice().sort(compare(place, order === "ascending" ? 1 : -1)));
    });
  });
}

// Numbers sort as numbers, names as text; cells without content come last in either direction.
function compare(place, sign) {
  return (a, b) => {
    const x = a.cells[place].dataset.key;
    const y = b.cells[place].dataset.key;
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const difference = Number(x) - Number(y);
    const isText = x.trim() === "" || y.trim() === "" || Number.isNaN(difference);
    return sign * (isText ? x.localeCompare(y, undefined, { numeric: true }) : difference);
  };
}
