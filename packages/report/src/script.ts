/**
 * @file What the page can do where JavaScript runs; without it, nothing is missing. Plain JavaScript
 * of today's browsers.
 */
export const script = `
"use strict";
// Marks say their titles at once, to the pointer and to the arrow keys.
const tip = Object.assign(document.createElement("div"), { id: "tip", role: "status", hidden: true });
document.body.append(tip);
const texts = new Map();
for (const mark of document.querySelectorAll(".mark")) {
  const title = mark.querySelector("title");
  texts.set(mark, title.textContent);
  title.remove();
}
let chosen;
function choose(mark) {
  chosen?.classList.remove("chosen");
  chosen = mark;
  mark?.classList.add("chosen");
}
function show(mark, x, y) {
  tip.hidden = mark === undefined;
  if (mark === undefined) return;
  tip.textContent = texts.get(mark);
  const { width, height } = tip.getBoundingClientRect();
  const edge = document.documentElement.clientWidth - width - 8;
  tip.style.left = Math.max(8, Math.min(edge, x - width / 2)) + "px";
  tip.style.top = (y > height + 24 ? y - height - 14 : y + 18) + "px";
}
for (const figure of document.querySelectorAll(".marks")) {
  const marks = [...figure.querySelectorAll(".mark")];
  const plots = [...figure.querySelectorAll("svg.plot")];
  // The title of a whole chart would cover those of its marks.
  for (const plot of plots) {
    plot.setAttribute("aria-label", plot.querySelector(":scope > title").textContent);
    plot.removeAttribute("aria-labelledby");
    plot.setAttribute("aria-describedby", plot.querySelector(":scope > desc").id);
    plot.querySelector(":scope > title").remove();
  }
  figure.tabIndex = 0;
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-label", "Figure: arrow keys read its parts");
  figure.addEventListener("pointermove", (event) => {
    const mark = event.target.closest(".mark") ?? undefined;
    show(mark, event.clientX, event.clientY);
  });
  figure.addEventListener("pointerleave", () => show());
  figure.addEventListener("blur", () => {
    choose();
    show();
  });
  figure.addEventListener("keydown", (event) => {
    if (event.target !== figure) return;
    const at = marks.indexOf(chosen);
    const plot = plots.indexOf(chosen?.closest("svg.plot"));
    const next = {
      ArrowRight: () => marks[at + 1],
      ArrowLeft: () => marks[at - 1],
      ArrowDown: () => plots[plot + 1]?.querySelector(".mark"),
      ArrowUp: () => plots[plot - 1]?.querySelector(".mark"),
    }[event.key]?.();
    if (event.key === "Escape") {
      choose();
      show();
    }
    if (!next) return;
    event.preventDefault();
    choose(next);
    next.scrollIntoView({ block: "nearest" });
    const { left, top, width } = next.getBoundingClientRect();
    show(next, left + width / 2, top);
  });
}
// Columns sort by their cells' values.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const valueOf = (row) => Number(row.cells[column].dataset.value ?? original.indexOf(row));
      const sign = descending ? -1 : 1;
      body.append(...[...original].sort((a, b) => sign * (valueOf(a) - valueOf(b))));
    });
  });
}
// What is folded away on the screen is printed.
const folded = new Set();
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    folded.add(details);
    details.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
  folded.clear();
});
`;
