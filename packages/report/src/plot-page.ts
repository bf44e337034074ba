/** @file A page of line plots, among which the reader chooses. */

import { plot } from "./chart.ts";
import { chartScript } from "./chart-script.ts";
import { type Html, html } from "./html.ts";
import { htmlDocument } from "./html-document.ts";
import {
  BODY_HEIGHT,
  type LinePlotOptions,
  legendOf,
  type PlotColours,
  plotBody,
} from "./line-plot.ts";
import { style } from "./style.ts";

export interface PlotOfPage extends LinePlotOptions {
  /** Which of the page's variants it is; default: it is the same for all. */
  readonly variant?: string | undefined;
}

/** Plots of the same series, which share a legend. */
export interface PlotSection {
  /** What it is about, from the general to the special; one name for each of the page's `choices`. */
  readonly path: readonly string[];
  /** What holds for all of its plots. */
  readonly text: string;
  readonly plots: readonly PlotOfPage[];
}

export interface PlotPageOptions {
  readonly title: string;
  /** How to read it. */
  readonly lead: string;
  /** What sections are chosen by. */
  readonly choices: readonly string[];
  /** What else plots differ in, and the names of its values. */
  readonly variants: { readonly label: string; readonly names: readonly string[] };
  readonly sections: readonly PlotSection[];
}

const pageColours: PlotColours = {
  ink: "var(--ink)",
  quiet: "var(--quiet)",
  line: "var(--line)",
};

const plotStyle = `
.choices{display:flex;flex-wrap:wrap;gap:.7rem 1.4rem;margin:1.4rem 0 0}
.choices label{display:grid;font-size:.85rem;color:var(--quiet);min-width:0}
select{font:inherit;font-size:1rem;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:5px;padding:.3rem .4rem;max-width:100%}
.key button{font:inherit;color:var(--ink);background:none;border:0;padding:.1rem 0;cursor:pointer}
.key button[aria-pressed=false]{color:var(--quiet);text-decoration:line-through}
.key svg{overflow:visible}
.plots .marks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:.5rem 2rem}
.plots .chart{padding:0 .6rem 0 3.7rem}
.plots .chart h3{margin:.6rem 0 .5rem -3.7rem}
#tip{max-width:min(27rem,95vw)}
@media print{.choices{display:none}}
`;

// Hidden sections are those of other choices, hidden plots those of other variants.
const plotScript = `
const choices = document.querySelector(".choices");
const levels = [...choices.querySelectorAll("[data-level]")];
const variant = choices.querySelector("[data-variants]");
const sections = [...document.querySelectorAll("section[data-path]")].map((element) => ({
  element,
  path: JSON.parse(element.dataset.path),
}));
function follow() {
  let left = sections;
  levels.forEach((select, level) => {
    const names = [...new Set(left.map(({ path }) => path[level]))];
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name)));
    if (names.includes(before)) select.value = before;
    left = left.filter(({ path }) => path[level] === select.value);
  });
  for (const { element } of sections) element.hidden = element !== left[0]?.element;
  for (const chart of document.querySelectorAll("[data-variant]")) {
    chart.hidden = chart.dataset.variant !== variant.value;
  }
  variant.closest("label").hidden = !left[0]?.element.querySelector("[data-variant]");
}
choices.hidden = sections.length === 0;
choices.addEventListener("change", follow);
follow();

// Series are switched off wherever they are shown. Marks are numbered among those that are shown.
const off = new Set();
const buttons = [];
function toggle(name) {
  for (const figure of document.querySelectorAll(".marks")) figure.dispatchEvent(new Event("blur"));
  if (!off.delete(name)) off.add(name);
  for (const series of document.querySelectorAll("[data-series]")) {
    series.toggleAttribute("hidden", off.has(series.dataset.series));
  }
  for (const [each, button] of buttons) button.setAttribute("aria-pressed", !off.has(each));
}
for (const entry of document.querySelectorAll("[data-legend]")) {
  const name = entry.dataset.legend;
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(...entry.childNodes);
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => toggle(name));
  entry.append(button);
  buttons.push([name, button]);
}
`;

/**
 * The text of an HTML file that needs nothing else. Where JavaScript does not run, all sections are
 * there, one after the other.
 */
export function plotPage({ title, lead, choices, variants, sections }: PlotPageOptions): string {
  const select = (label: string, attributes: Html, names: readonly string[]) =>
    html`<label>${label}<select autocomplete="off"${attributes}>${names.map((name) => html`<option>${name}</option>`)}</select></label>`;
  return htmlDocument({
    title,
    style: style + plotStyle,
    script: chartScript + plotScript,
    body: html`<header>
<h1>${title}</h1>
<p class="lead">${lead}</p>
<div class="choices" role="group" aria-label="What is shown" hidden>${choices.map((label, level) => select(label, html` data-level="${level}"`, []))}${select(variants.label, html` data-variants`, variants.names)}</div>
</header>
<main>
${sections.length === 0 ? html`<p class="missing">Nothing is measured yet.</p>` : sections.map(sectionOf)}
</main>`,
  });
}

function sectionOf({ path, text, plots }: PlotSection, i: number): Html {
  const series = plots.reduce<LinePlotOptions["series"]>(
    // A series may have no point in some of the plots.
    (all, each) => each.series.map((own, k) => ((all[k]?.points.length ?? 0) > 0 ? all[k] : own)),
    [],
  );
  const legend = legendOf(series, pageColours).map(
    ({ name, symbol }) =>
      html`<li data-legend="${name}"><svg viewBox="-5 -5 10 10" aria-hidden="true">${symbol}</svg>${name}</li>`,
  );
  const charts = plots.map((each, k) => {
    const { title, description, variant } = each;
    return html`<div class="chart"${variant !== undefined && html` data-variant="${variant}"`}><h3>${title}</h3>${plot(
      {
        id: `plot-${i}-${k}`,
        title,
        description,
        height: BODY_HEIGHT,
        body: plotBody(each, pageColours),
      },
    )}</div>`;
  });
  return html`<section class="plots" data-path="${JSON.stringify(path)}" aria-labelledby="section-${i}">
<h2 id="section-${i}">${path.join(" · ")}</h2>
<p>${text}</p>
<ul class="key">${legend}</ul>
<div class="marks">${charts}</div>
</section>
`;
}
