// Beans are grouped by supplier only while the table is sorted by supplier.
const table = document.getElementById("beans");
if (table) {
  const groups = [...table.tBodies];
  const members = groups.map((group) => [...group.rows].slice(1));
  const list = document.createElement("tbody");
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const heads = [...table.tHead.rows[0].cells];

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    if (value === undefined) return cell.textContent.trim();
    return value === "" ? null : Number(value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : collator.compare(a, b));

  const sort = (column, direction) => {
    const grouped = column === 0;
    table.classList.toggle("grouped", grouped);
    if (grouped) {
      groups.forEach((group, index) => group.append(...members[index]));
      list.remove();
      table.append(...(direction > 0 ? groups : [...groups].reverse()));
      return;
    }
    const keyed = members.flat().map((row) => [valueOf(row, column), row]);
    const known = keyed.filter(([value]) => value !== null);
    const unknown = keyed.filter(([value]) => value === null);
    known.sort(([a], [b]) => direction * compare(a, b));
    list.replaceChildren(...[...known, ...unknown].map(([, row]) => row));
    groups.forEach((group) => group.remove());
    table.append(list);
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      sort(column, direction);
    });
  });
  table.classList.add("sortable");
}
