/**
 * @file What charts can do where JavaScript runs: their parts say what they are, to the pointer and to
 * the keys. Plain JavaScript of today's browsers.
 */
export const chartScript = `
"use strict";
const tip = Object.assign(document.createElement("div"), { id: "tip", role: "status", hidden: true });
document.body.append(tip);
function show(text, x, y) {
  tip.hidden = text === undefined;
  if (tip.hidden) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  const edge = document.documentElement.clientWidth - width - 8;
  tip.style.left = Math.max(8, Math.min(edge, x - width / 2)) + "px";
  tip.style.top = (y > height + 24 ? y - height - 14 : y + 18) + "px";
}

// A chart has parts, each with a text and a place. Hidden ones are passed over.
const isShown = (element) => element.closest("[hidden]") === null;
const charts = new Map();
function markChart(plot) {
  const texts = new Map();
  for (const mark of plot.querySelectorAll(".mark")) {
    const title = mark.querySelector("title");
    title.remove();
    texts.set(mark, title.textContent);
  }
  const shown = () => [...texts.keys()].filter(isShown);
  charts.set(plot, {
    get count() {
      return shown().length;
    },
    text: (i) => texts.get(shown()[i]),
    choose: (i) => shown().forEach((mark, k) => mark.classList.toggle("chosen", k === i)),
    place(i) {
      const { left, top, width } = shown()[i].getBoundingClientRect();
      return [left + width / 2, top];
    },
    at({ target }) {
      const i = shown().indexOf(target.closest(".mark"));
      return i < 0 ? undefined : i;
    },
  });
}
for (const plot of document.querySelectorAll("svg.plot")) {
  // The title of a whole chart would cover those of its parts.
  const title = plot.querySelector(":scope > title");
  plot.setAttribute("aria-label", title.textContent);
  plot.removeAttribute("aria-labelledby");
  plot.setAttribute("aria-describedby", plot.querySelector(":scope > desc").id);
  title.remove();
  markChart(plot);
}

// Parts say their texts at once, to the pointer and to the keys.
for (const figure of document.querySelectorAll(".marks")) {
  let chosen;
  const choose = (plot, part) => {
    if (chosen) charts.get(chosen.plot).choose();
    chosen = plot && { plot, part };
    if (!plot) return show();
    const chart = charts.get(plot);
    chart.choose(part);
    plot.scrollIntoView({ block: "nearest" });
    show(chart.text(part), ...chart.place(part));
  };
  figure.tabIndex = 0;
  figure.setAttribute("role", "group");
  figure.setAttribute("aria-label", "Figure: arrow keys, Page Up and Down, Home and End read its parts");
  figure.addEventListener("pointermove", (event) => {
    const plot = event.target.closest("svg.plot");
    const part = plot ? charts.get(plot).at(event) : undefined;
    if (part === undefined) return choose();
    if (chosen) charts.get(chosen.plot).choose();
    chosen = { plot, part };
    charts.get(plot).choose(part);
    show(charts.get(plot).text(part), event.clientX, event.clientY);
  });
  figure.addEventListener("pointerleave", () => choose());
  figure.addEventListener("blur", () => choose());
  figure.addEventListener("keydown", (event) => {
    if (event.target !== figure) return;
    if (event.key === "Escape") return choose();
    const plots = [...figure.querySelectorAll("svg.plot")].filter((plot) => isShown(plot) && charts.get(plot).count > 0);
    const at = plots.indexOf(chosen?.plot);
    const last = chosen ? charts.get(chosen.plot).count - 1 : 0;
    const page = Math.max(1, Math.round(last / 10));
    const step = (by) => {
      if (!chosen) return by > 0 && [plots[0], 0];
      const part = chosen.part + by;
      if (part >= 0 && part <= last) return [chosen.plot, part];
      const next = plots[at + Math.sign(by)];
      return next && [next, by > 0 ? 0 : charts.get(next).count - 1];
    };
    const next = {
      ArrowRight: () => step(1),
      ArrowLeft: () => step(-1),
      PageDown: () => step(page),
      PageUp: () => step(-page),
      Home: () => chosen && [chosen.plot, 0],
      End: () => chosen && [chosen.plot, last],
      ArrowDown: () => plots[at + 1] && [plots[at + 1], 0],
      ArrowUp: () => plots[at - 1] && [plots[at - 1], 0],
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    choose(...next);
  });
}
`;
