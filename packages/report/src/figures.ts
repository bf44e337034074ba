/** @file The figures of the page. */
import type { Decision } from "@espalier/core";
import type { Latency } from "@espalier/pipeline";
import { curve, grid, linearScale, mark, percent, pixels, plot, type Scale } from "./chart.ts";
import type { Criteria } from "./criteria.ts";
import { describeCounts, describeEpochs, fates, unitsOf } from "./explain.ts";
import { formatNumber } from "./format.ts";
import { type Html, html } from "./html.ts";
import type { EpochRecord } from "./read-run.ts";
import type { DecisionCounts, LatencySummary, LayerWidth } from "./summary.ts";

const BAR_HEIGHT = 20;

// Heights tell what happens to a component without colour, too.
const barTops: Readonly<Record<Decision, number>> = { prune: 14, implant: 8, keep: 0 };

/**
 * Shares of what is removed, replaced and kept, as one bar. The page's script puts a strip with
 * every component's score in its place.
 */
export function decisionBar(name: string, counts: DecisionCounts, group: number): Html {
  const total = counts.keep + counts.implant + counts.prune;
  let start = 0;
  const parts = (["prune", "implant", "keep"] as const).map((decision) => {
    const share = counts[decision] / total;
    const x = percent(start);
    const top = barTops[decision];
    start += share;
    return (
      share > 0 &&
      mark(
        `${name}: ${counts[decision]} of ${total} ${fates[decision]}`,
        html`<rect class="${decision}" x="${x}" width="${percent(share)}" y="${top}" height="${BAR_HEIGHT - top}"/>`,
      )
    );
  });
  return plot({
    id: `decisions-${group}`,
    title: `What becomes of ${name}`,
    description: `${describeCounts(counts)}.`,
    height: BAR_HEIGHT,
    body: parts,
    attributes: html` data-strip="${group}"`,
  });
}

const WIDTHS_HEIGHT = 150;

/** Every layer's width before and after, as a skyline. */
export function widthsFigure(widths: readonly LayerWidth[]): Html {
  const base = WIDTHS_HEIGHT - 20;
  const most = Math.max(...widths.map(({ before, after }) => Math.max(before, after)));
  const y = linearScale([0, most], [base, 8], 4);
  const slot = 1 / widths.length;
  const bars = widths.map((width, i) => {
    const { layer, before, after, implants } = width;
    const bar = (style: string, bottom: number, top: number) =>
      top > bottom &&
      html`<rect class="${style}" x="${percent((i + 0.12) * slot)}" width="${percent(0.76 * slot)}" y="${pixels(y(top))}" height="${pixels(y(bottom) - y(top))}"/>`;
    const made =
      implants === 0 ? "" : `, ${implants} of them ${implants === 1 ? "an implant" : "implants"}`;
    return mark(
      `${layer}: ${before} → ${after} ${unitsOf([width])}${made}`,
      html`<rect class="reach" x="${percent(i * slot)}" width="${percent(slot)}" height="${base}"/>${bar("prune", after, before)}${bar("keep", 0, after - implants)}${bar("implant", after - implants, after)}`,
      html` data-layer="${layer}" data-before="${before}" data-after="${after}" data-implants="${implants}"`,
    );
  });
  const body = [grid(y, String), bars, stageLabels(widths, base)];
  const total = (of: "before" | "after") => widths.reduce((sum, width) => sum + width[of], 0);
  return html`<div class="chart marks">${plot({
    id: "widths",
    title: "Width of each layer before and after",
    description: `${widths.length} layers with ${total("before")} ${unitsOf(widths)} before and ${total("after")} after.`,
    height: WIDTHS_HEIGHT,
    body,
  })}</div>`;
}

/** The first part of the layers' names, under those that share it, where there is room. */
function stageLabels(widths: readonly LayerWidth[], base: number): Html[] {
  const stageOf = (i: number) => widths[i]?.layer.split(".")[0];
  const labels: Html[] = [];
  let first = 0;
  widths.forEach((_, i) => {
    if (stageOf(i + 1) === stageOf(i)) return;
    const [from, to] = [first / widths.length, (i + 1) / widths.length];
    first = i + 1;
    if (to - from < 0.12) return;
    labels.push(
      html`<line class="stage" x1="${percent(from)}" x2="${percent(to)}" y1="${base + 3}" y2="${base + 3}"/><text class="tick" x="${percent((from + to) / 2)}" y="${base + 16}" text-anchor="middle">${stageOf(i)}</text>`,
    );
  });
  return labels;
}

const CURVE_HEIGHT = 170;
// Two lines of letters.
const LABEL_HEIGHT = 28;

interface Series {
  readonly name: string;
  readonly style: string;
  readonly values: readonly number[];
}

/**
 * The course of training: loss, accuracies and learning rate, epoch by epoch.
 *
 * @param id Unique in the page.
 */
export function trainingFigure(
  id: string,
  training: readonly EpochRecord[],
  { accuracy, loss: { unit } }: Criteria,
): Html {
  const epochs = training.map(({ epoch }) => epoch);
  const held = training.flatMap(({ validationAccuracy }) => validationAccuracy ?? []);
  const series = (name: string, style: string, values: readonly number[]) => ({
    name,
    style,
    values,
  });
  const accuracies = [
    series(
      "training",
      "training",
      training.map(({ trainAccuracy }) => trainAccuracy),
    ),
    ...(held.length === training.length ? [series("held out", "held-out", held)] : []),
  ];
  const loss = series(
    "loss",
    "training",
    training.map(({ loss }) => loss),
  );
  const rate = series(
    "learning rate",
    "rate",
    training.map(({ learningRate }) => learningRate),
  );
  const chart = (
    title: string,
    shown: readonly Series[],
    format: (value: number) => string,
    formatTick = format,
  ) => epochChart(`${id}-${slug(title)}`, title, epochs, shown, format, formatTick);
  return html`<div class="curves marks">${[
    chart(unit === undefined ? "Loss" : `Loss, in ${unit}`, [loss], formatNumber),
    chart(accuracy.name, accuracies, accuracy.formatLabel, accuracy.formatTick),
    chart("Learning rate", [rate], formatNumber),
  ]}</div>`;
}

function slug(title: string): string {
  return title.toLowerCase().replaceAll(/\W+/g, "-");
}

function epochChart(
  id: string,
  title: string,
  epochs: readonly number[],
  series: readonly Series[],
  format: (value: number) => string,
  formatTick: (value: number) => string,
): Html {
  const all = series.flatMap(({ values }) => values);
  const base = CURVE_HEIGHT - 20;
  const y = linearScale([Math.min(...all), Math.max(...all)], [base - 8, 10], 4);
  const last = epochs.length - 1;
  const x = linearScale([epochs[0], epochs[last]], [0, 1], 5);
  const lines = series.map(({ values, style }) =>
    curve(
      values.map((value, i) => [x(epochs[i]), y(value)] as const),
      CURVE_HEIGHT,
      style,
    ),
  );
  const width = 1 / epochs.length;
  const radius = epochs.length > 40 ? 1.5 : 2.5;
  const points = epochs.map((epoch, i) => {
    const at = x(epoch);
    return mark(
      `Epoch ${epoch}: ${series.map(({ name, values }) => `${name} ${format(values[i])}`).join(", ")}`,
      html`<rect class="reach" x="${percent(at - width / 2)}" width="${percent(width)}" height="${base}"/>${series.map(
        ({ values, style }) =>
          html`<circle class="point ${style}" cx="${percent(at)}" cy="${pixels(y(values[i]))}" r="${radius}"/>`,
      )}`,
      html` data-epoch="${epoch}"${series.map(({ style, values }) => html` data-${style}="${values[i]}"`)}`,
    );
  });
  const ticks = x.ticks
    .filter(Number.isInteger)
    .map(
      (epoch) =>
        html`<text class="tick" x="${percent(x(epoch))}" y="${CURVE_HEIGHT - 4}" text-anchor="middle">${epoch}</text>`,
    );
  const ends = series.map(
    ({ name, values }) => `${name} from ${format(values[0])} to ${format(values[last])}`,
  );
  return html`<div class="chart"><h3 class="small">${title}</h3>${plot({
    id,
    title: `${title}, over epochs`,
    description: `${describeEpochs(epochs.length)}: ${ends.join("; ")}.`,
    height: CURVE_HEIGHT,
    body: [
      grid(y, formatTick),
      lines,
      points,
      series.length > 1 ? endLabels(series, x(epochs[last]), y, format) : undefined,
      ticks,
    ],
  })}</div>`;
}

/** Names and last values of curves, at their right ends. */
function endLabels(
  series: readonly Series[],
  x: number,
  y: Scale,
  format: (value: number) => string,
): Html[] {
  let free = 0;
  const end = (values: readonly number[]) => values[values.length - 1];
  return [...series]
    .sort((a, b) => end(b.values) - end(a.values))
    .map(({ name, style, values }, i) => {
      // From top to bottom, each as near to its curve as those above and below leave room for.
      const below = series.length - 1 - i;
      const lowest = CURVE_HEIGHT - 20 - (below + 0.5) * LABEL_HEIGHT;
      const at = Math.min(lowest, Math.max(free + LABEL_HEIGHT / 2, y(end(values))));
      free = at + LABEL_HEIGHT / 2;
      const text = (line: string, dy: number) =>
        html`<text class="end ${style}" x="${percent(x)}" dx="10" y="${pixels(at + dy)}">${line}</text>`;
      return html`${text(name, -2)}${text(format(end(values)), 12)}`;
    });
}

const LATENCY_HEIGHT = 64;

function whisker([from, to]: readonly string[], y: number): Html {
  const end = (x: string) => html`<line x1="${x}" x2="${x}" y1="${y - 4}" y2="${y + 4}"/>`;
  return html`<g class="whisker"><line x1="${from}" x2="${to}" y1="${y}" y2="${y}"/>${end(from)}${end(to)}</g>`;
}

/** First to third quartile of the times of both models, for each batch size on a scale of its own. */
export function latencyFigure(
  batches: readonly LatencySummary[],
  after: string,
  sample: string,
): Html {
  return html`<div class="latencies marks">${batches.map((times) => {
    const { batch, dense, pruned } = times;
    // The numbers stand to the right of the whiskers.
    const most = Math.max(dense.quartiles[1], pruned.quartiles[1]) * 1.6;
    const x = linearScale([0, most], [0, 1], 5);
    const row = (name: string, { median, quartiles, runs }: Latency, y: number, style: string) =>
      mark(
        `Batch ${batch}, ${name}: first quartile ${formatNumber(quartiles[0])} ms, median ${formatNumber(median)} ms, third quartile ${formatNumber(quartiles[1])} ms, ${runs} runs`,
        html`<text class="row" x="-8" y="${y}" dy=".32em" text-anchor="end">${name}</text><rect class="${style}" width="${percent(x(quartiles[0]))}" y="${y - 9}" height="18"/>${whisker(
          quartiles.map((quartile) => percent(x(quartile))),
          y,
        )}<text class="row" x="${percent(x(quartiles[1]))}" dx="8" y="${y}" dy=".32em">${formatNumber(quartiles[0])} ms</text>`,
        html` data-batch="${batch}" data-model="${name}" data-quartiles="${quartiles.join(" ")}"`,
      );
    return html`<div class="chart"><h3 class="small">${batch === 1 ? `1 ${sample} at a time` : `${batch} ${sample}s at a time`}</h3>${plot(
      {
        id: `latency-${batch}`,
        title: `Time for a batch of ${batch}`,
        description: `First quartile ${formatNumber(dense.quartiles[0])} ms dense, ${formatNumber(pruned.quartiles[0])} ms ${after}.`,
        height: LATENCY_HEIGHT,
        body: [row("dense", dense, 18, "dense"), row(after, pruned, 46, "keep")],
      },
    )}</div>`;
  })}</div>`;
}
