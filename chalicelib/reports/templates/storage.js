const body = document.querySelector(".buckets tbody");
const { compare } = new Intl.Collator("en", { numeric: true });
const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].firstChild.textContent;
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const direction = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const keyed = [...body.rows].map((row) => [valueOf(row, head.cellIndex), row]);
    keyed.sort(([a], [b]) => direction * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  });
}
document.querySelector("input").addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  for (const row of body.rows) row.hidden = !valueOf(row, 0).includes(wanted);
});
