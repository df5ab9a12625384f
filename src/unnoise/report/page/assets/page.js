// Sorting tables, choosing pictures, searching keys.

function compared(a, b, sign) {
  if (a === b) return 0;
  if (a === undefined || a === "nan") return 1; // what is missing comes last, whatever the order
  if (b === undefined || b === "nan") return -1;
  const numbers = [Number(a), Number(b)];
  const either = numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  return sign * either;
}

// By a column; values of different kinds are not compared, but stand kind by kind.
function sort(table, column, sign) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, ...row.cells[column].dataset }));
  rows.sort((a, b) => (a.kind || 0) - (b.kind || 0) || compared(a.value, b.value, sign));
  body.append(...rows.map(({ row }) => row));
  [...table.tHead.rows[0].cells].forEach((cell) => cell.removeAttribute("aria-sort"));
  const direction = sign > 0 ? "ascending" : "descending";
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => {
      const turned = { ascending: -1, descending: 1 }[cell.getAttribute("aria-sort")];
      sort(table, column, turned || Number(cell.dataset.order || 1));
    });
  });
}

// Each strip shows its newest grid up to the step that the slider is at.
for (const label of document.querySelectorAll(".slider")) {
  const steps = label.dataset.steps.split(" ").map(Number);
  const strips = label.closest("section").querySelectorAll(".strip");
  const choose = () => {
    const step = steps[label.querySelector("input").value];
    label.querySelector("output").textContent = step.toLocaleString("en-US");
    for (const strip of strips) {
      const figures = [...strip.children];
      const past = figures.filter((figure) => Number(figure.dataset.step) <= step);
      figures.forEach((figure) => (figure.hidden = figure !== (past.at(-1) || figures[0])));
    }
  };
  label.querySelector("input").addEventListener("input", choose);
  label.hidden = false;
  choose();
}

for (const field of document.querySelectorAll("input[type=search]")) {
  field.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of field.parentElement.querySelectorAll("tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
}

for (const label of document.querySelectorAll(".switch")) {
  label.hidden = false;
  label.querySelector("input").addEventListener("change", (event) => {
    for (const row of label.closest("section").querySelectorAll(".same")) row.hidden = !event.target.checked;
  });
}

document.querySelector("nav").append(
  ...[...document.querySelectorAll("main > section")].map((section) =>
    make("a", { href: `#${section.id}` }, section.querySelector("h2").textContent)),
);
