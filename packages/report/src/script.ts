/**
 * @file What the page can do where JavaScript runs: it reads out single scores, and shows what other
 * budgets would do. Runs after the script of charts.
 */
export const script = `
const data = JSON.parse(document.getElementById("data")?.textContent ?? '{"groups":[],"budgets":[]}');
const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
// What happens to the component at a place in its group: runs are removed, implants, kept in turn.
function fateAt(runs, place) {
  for (let i = 0, end = 0; i < runs.length; i++) if (place < (end += runs[i])) return i % 3;
}
// The decisions on each group that strips show.
let shown = data.groups.map(({ decisions }) => decisions);

// Charts of components know their parts from the data.
function componentChart(plot, group, decisions) {
  const count = group.components.length;
  const cursor = shape("rect", { class: "cursor", height: "100%", width: 100 / count + "%", visibility: "hidden" });
  plot.append(cursor);
  charts.set(plot, {
    count,
    text(i) {
      const error = group.errors[i] ? " ± " + group.errors[i] : "";
      const runs = decisions();
      const fate = runs ? ", " + data.fates[fateAt(runs, i)] : "";
      return group.name + ", component " + group.components[i] + ": " + group.scores[i] + error + fate;
    },
    choose(i) {
      cursor.setAttribute("visibility", i === undefined ? "hidden" : "visible");
      if (i !== undefined) cursor.setAttribute("x", (100 * i) / count + "%");
    },
    place(i) {
      const { left, top, width } = plot.getBoundingClientRect();
      return [left + (width * (i + 0.5)) / count, top];
    },
    at({ clientX }) {
      const { left, width } = plot.getBoundingClientRect();
      return Math.max(0, Math.min(count - 1, Math.floor(((clientX - left) / width) * count)));
    },
  });
}

// A strip: the height of a component is its decision, the strength of its colour its score.
const STYLES = ["prune", "implant", "keep"];
const TOPS = [14, 8, 0];
function drawStrip(plot, group, runs) {
  const count = group.components.length;
  const parts = shape("g", { class: "strip" });
  for (let run = 0, start = 0; run < runs.length; start += runs[run++]) {
    for (let level = 0, low = 0; level < group.levels.length; low += group.levels[level++]) {
      const from = Math.max(start, low);
      const to = Math.min(start + runs[run], low + group.levels[level]);
      if (from >= to) continue;
      const top = TOPS[run % 3];
      parts.append(
        shape("rect", {
          class: STYLES[run % 3],
          x: (100 * from) / count + "%",
          width: (100 * (to - from)) / count + "%",
          y: top,
          height: 20 - top,
          "fill-opacity": (0.25 + (0.75 * (level + 1)) / group.levels.length).toFixed(2),
        }),
      );
    }
  }
  (plot.querySelector(".strip") ?? plot.appendChild(shape("g", {}))).replaceWith(parts);
  plot.querySelector("desc").textContent =
    STYLES.map((style, i) => data.fates[i] + ": " + countOf(runs, i)).join("; ") + ".";
}
function countOf(runs, fate) {
  return runs.reduce((sum, length, i) => sum + (i % 3 === fate ? length : 0), 0);
}

for (const plot of document.querySelectorAll("svg.plot")) {
  const { scores, strip } = plot.dataset;
  const group = data.groups[scores ?? strip];
  if (group === undefined) continue;
  if (strip === undefined) componentChart(plot, group, () => group.decisions);
  else {
    for (const mark of plot.querySelectorAll(".mark")) mark.remove();
    drawStrip(plot, group, group.decisions);
    componentChart(plot, group, () => shown[strip]);
  }
}
if (data.groups.length > 0) for (const text of document.querySelectorAll(".scripted")) text.hidden = false;

// The slider shows the plans of other budgets.
const budget = document.getElementById("budget");
if (budget !== null) {
  budget.hidden = false;
  const slider = document.getElementById("budget-slider");
  const reset = document.getElementById("budget-reset");
  const note = document.getElementById("budget-note");
  const run = data.budgets.findIndex(({ isRun }) => isRun);
  const rows = [...document.querySelectorAll("tr[data-group]")];
  const plots = rows.map((row) => row.querySelector("[data-strip]"));
  const follow = () => {
    const { facts, text, groups, isRun } = data.budgets[slider.value];
    shown = groups;
    slider.setAttribute("aria-valuetext", text);
    for (const fact of budget.querySelectorAll("[data-fact]")) fact.textContent = facts[fact.dataset.fact];
    note.textContent = isRun ? "as in this run" : "predicted, not what this run did";
    reset.hidden = isRun;
    rows.forEach((row, k) => {
      const runs = groups[plots[k].dataset.strip];
      drawStrip(plots[k], data.groups[plots[k].dataset.strip], runs);
      const [prune, implant, keep] = STYLES.map((_, i) => countOf(runs, i));
      const whole = prune + implant + keep;
      const set = (name, value, words) => {
        const cell = row.querySelector("[data-count=" + name + "]");
        cell.dataset.value = value;
        cell.textContent = words ?? value;
      };
      set("keep", keep);
      set("implant", implant);
      set("prune", prune);
      set("left", (keep + implant) / whole, whole + " → " + (keep + implant));
    });
  };
  slider.addEventListener("input", follow);
  reset.addEventListener("click", () => {
    slider.value = run;
    follow();
    slider.focus();
  });
  slider.value = run;
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
