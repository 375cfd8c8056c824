// Sortable tables; the page reads the same without it.
document.querySelectorAll("table").forEach((table) => {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const found = parseFloat(text.replace(/,/g, ""));
    return text === "–" ? null : Number.isNaN(found) ? text.toLowerCase() : found;
  };
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const sorted = (column, sign) =>
    [...body.rows]
      .map((row) => [value(row, column), row])
      .sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * order(a, b)))
      .map(([, row]) => row);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const up = now ? now === "descending" : !head.classList.contains("num"); // numbers begin with the largest
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...sorted(column, up ? 1 : -1));
    });
  });
});
