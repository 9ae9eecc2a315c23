"use strict";
// Tables become sortable by their headings. Without scripts they stay as they are.
for (const table of document.querySelectorAll("table:not(#runs *)")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const name = head.textContent.trim().replace("\u200b", "");
    if (!name) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("n");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[place];
        const known = !numeric || cell.dataset.v !== undefined;
        return { row, known, value: numeric ? Number(cell.dataset.v) : cell.textContent };
      });
      rows.sort((a, b) => {
        if (!a.known || !b.known) return a.known === b.known ? 0 : a.known ? -1 : 1;
        const order = numeric ? a.value - b.value : a.value.localeCompare(b.value, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows.map((entry) => entry.row));
    });
  });
}
