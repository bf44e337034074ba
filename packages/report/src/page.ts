/** @file The page of a run: one HTML file that needs nothing else. */

import { fileName } from "@espalier/pipeline";
import { chartScript } from "./chart-script.ts";
import { criteriaOf } from "./criteria.ts";
import {
  budgetNames,
  describeCounts,
  describeEpochs,
  describeModel,
  describeReduction,
  describeTraining,
  epochsOf,
  explainData,
  explainTuning,
  looksAtData,
} from "./explain.ts";
import { formatCount, formatLarge, formatPercent, formatRatio } from "./format.ts";
import { type Content, type Html, html } from "./html.ts";
import { htmlDocument } from "./html-document.ts";
import { sampleName } from "./instructions.ts";
import { embedJson, pageData } from "./page-data.ts";
import { script } from "./script.ts";
import { type RunFile, sectionsOf } from "./sections.ts";
import { style } from "./style.ts";
import type { Reduction, Summary } from "./summary.ts";

/** The page; `files` are those that the run has. */
export function renderPage(summary: Summary, files: readonly RunFile[]): string {
  const sections = sectionsOf(summary, files);
  const { title, lead } = headline(summary);
  const note = explainData(summary);
  const data = pageData(summary);
  return htmlDocument({
    title: `${title} · ${summary.run}`,
    style,
    script: chartScript + script,
    body: html`<header>
<p class="overline">Espalier · run ${summary.run}</p>
<h1>${title}</h1>
<p class="lead">${lead}${note && ` ${note}`}</p>
${tiles(summary)}
<nav aria-label="Sections"><ul>${sections.map(({ id, title }) => html`<li><a href="#${id}">${title}</a></li>`)}</ul></nav>
</header>
<main>
${sections.map(({ id, title, body }) => html`<section id="${id}" aria-labelledby="${id}-heading">\n<h2 id="${id}-heading">${title}</h2>\n${body}\n</section>\n`)}
</main>
<footer><p>Every number of this page is in <a href="summary.json">summary.json</a>, unrounded. The page was made from the files of the run alone and can be made again with <code>espalier report</code>.</p></footer>
${data && embedJson("data", data)}`,
  });
}

function headline(summary: Summary): { title: string; lead: Html } {
  const { manifest, counts, plan, sensitivity, sizes, model } = summary;
  const epochs = describeEpochs(epochsOf(summary));
  const network = describeModel(summary);
  if (manifest.command === "train") {
    const name = fileName(manifest.source);
    const how = describeTraining(summary);
    return {
      title: `${name}, ${how.replace(" from scratch", "")} on ${manifest.data}`,
      lead: html`${network ?? name}, ${how} for ${epochs}.`,
    };
  }
  const file = fileName(manifest.source);
  if (manifest.command === "sensitivity") {
    const found =
      sensitivity &&
      ` It has ${formatCount(sensitivity.components)} removable components in ${summary.groups.length} groups.`;
    return {
      title: `Sensitivity of ${file}`,
      lead: html`What would be lost${looksAtData(summary) && ` on ${manifest.data}`} without each component of <code>${file}</code>?${found}`,
    };
  }
  const left =
    sizes !== undefined
      ? ` to ${formatPercent(1 / sizes.macs.ratio, 0)} of its multiply-accumulates`
      : plan && ` to ${formatPercent(plan.reached, 0)} of its ${budgetNames[plan.budget.of]}`;
  const way = manifest.planGiven
    ? " following a given plan"
    : manifest.rounds > 1
      ? ` in ${manifest.rounds} rounds`
      : "";
  const done =
    counts &&
    ` Of its ${formatCount(counts.keep + counts.implant + counts.prune)} components, ${describeCounts(counts)}.`;
  return {
    title: model === undefined ? `Pruning of ${file}` : `${model.type}, pruned${left ?? ""}`,
    lead: html`${network ?? "A network"} for ${manifest.data}, made from <code>${file}</code>${way}.${done} ${explainTuning(summary)}`,
  };
}

interface Tile {
  readonly name: string;
  readonly value: Content;
  readonly note: Content;
  readonly wide?: boolean;
}

function tiles(summary: Summary): Html {
  const shown = tilesOf(summary);
  return html`${
    shown.length > 0 &&
    html`<dl class="tiles">${shown.map(
      ({ name, value, note, wide }) =>
        html`<div class="tile${wide ? " wide" : ""}"><dt>${name}</dt><dd><div class="big">${value}</div><small>${note}</small></dd></div>`,
    )}</dl>`
  }`;
}

function tilesOf(summary: Summary): Tile[] {
  const { manifest, evaluation, sizes, latency, trained, sensitivity } = summary;
  const shown: Tile[] = [];
  const { accuracy: criterion, loss } = criteriaOf(summary);
  if (evaluation !== undefined) {
    const { dense, pruned, tuned } = evaluation;
    const steps = [
      { name: "dense", accuracy: dense.accuracy },
      { name: "straight after pruning", accuracy: pruned.accuracy },
    ];
    if (epochsOf(summary) > 0) steps.push({ name: "after tuning", accuracy: tuned.accuracy });
    const arrow = html`<span class="arrow" aria-hidden="true">→</span>`;
    shown.push({
      name: `${criterion.name} on the test set of ${manifest.data}`,
      wide: true,
      value: html`<div class="steps">${steps.map(({ name, accuracy }, i) => [i > 0 && arrow, html`<span>${criterion.format(accuracy)}<small>${name}</small></span>`])}</div>`,
      note: html`${criterion.describeChange(dense.accuracy, tuned.accuracy)} in all; ${formatCount(dense.count)} samples`,
    });
  }
  if (trained !== undefined) {
    shown.push({
      name: `${criterion.name} on the test set of ${manifest.data}`,
      value: criterion.format(trained.accuracy),
      note: html`${criterion.describeError(trained.standardError)}; ${formatCount(trained.count)} samples`,
    });
    shown.push({
      name: loss.name,
      value: trained.loss.toFixed(4),
      note: [loss.unit, "on the test set"].filter(Boolean).join(", "),
    });
  }
  const reduced = (name: string, { dense, pruned, ratio }: Reduction) =>
    shown.push({
      name,
      value: describeReduction(ratio),
      note: `${formatLarge(dense)} → ${formatLarge(pruned)}`,
    });
  if (sizes !== undefined) {
    reduced("Multiply-accumulates", sizes.macs);
    reduced("Parameters", sizes.parameters);
  }
  if (latency !== undefined && latency.batches.length > 0) {
    shown.push({
      name: "Measured speed-up",
      value: latency.batches.map(({ speedup }) => formatRatio(speedup)).join(" · "),
      note: `with ${latency.batches.map(({ batch }) => formatCount(batch)).join(" and ")} ${sampleName(summary.model)}s at a time${latency.batches.some(({ speedup }) => speedup < 1) ? "; below 1 is slower" : ""}`,
    });
  }
  if (manifest.command === "sensitivity" && sensitivity !== undefined) {
    const { components, rankStability, negative, samples } = sensitivity;
    shown.push(
      {
        name: "Components",
        value: formatCount(components),
        note: `in ${summary.groups.length} groups`,
      },
      {
        name: "Rank stability",
        value: rankStability.toFixed(3),
        note: looksAtData(summary)
          ? "the rank correlation to expect with as many other samples"
          : "measured again, the ranking would be the same",
      },
      {
        name: "Scores below zero",
        value: formatCount(negative),
        note: `of ${formatCount(components)}`,
      },
    );
    if (looksAtData(summary)) {
      shown.push({ name: "Samples", value: formatCount(samples), note: `of ${manifest.data}` });
    }
  }
  return shown;
}
