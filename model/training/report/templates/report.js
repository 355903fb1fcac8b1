"use strict";

// A click on a column's head sorts by it; a second one turns the order round. Cells without a value come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head) => {
    const column = heads.indexOf(head);
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (one, other) => {
      if (one === "" || other === "") return (one === "") - (other === "");
      const order = isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort((one, other) => compare(key(one), key(other))));
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };
  for (const head of heads) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort(head);
      }
    });
  }
}

// A finger has no hover: what a cell of the matrix says is written below it, too.
const said = document.querySelector("#cell");
const say = (event) => {
  const cell = event.target.closest(".cell");
  if (cell) said.textContent = cell.querySelector("title").textContent;
};
document.querySelector(".matrix").addEventListener("pointerover", say);
document.querySelector(".matrix").addEventListener("click", say);
