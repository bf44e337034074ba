/** @file Attention heads: a cell for each, in a row for each layer. */
import type { Decision } from "@espalier/core";
import { mark, percent, plot } from "./chart.ts";
import { describeCounts, fates } from "./explain.ts";
import { formatNumber } from "./format.ts";
import { type Html, html } from "./html.ts";
import { type ScoredGroup, type ScoreScale, scoredGroups, scoreScale } from "./score-panels.ts";
import { addCounts, type GroupSummary } from "./summary.ts";

const CELL_HEIGHT = 24;
const LABEL_HEIGHT = 18;
// The lowest scores are to be seen, too.
const FAINTEST = 0.15;

/**
 * Every head of every layer, coloured by its fate and, the stronger, the higher its score, with the
 * ranks of implants; undefined for models without scored heads.
 *
 * @param metric What the scores are.
 */
export function headsFigure(groups: readonly GroupSummary[], metric: string): Html | undefined {
  const layers = scoredGroups(groups.filter(({ kind }) => kind === "head"));
  if (layers.length === 0) return undefined;
  const scale = scoreScale(layers, metric);
  const columns = Math.max(...layers.map(({ components }) => components));
  const rows = layers.map((layer, i) => row(layer, i * CELL_HEIGHT, columns, scale));
  const height = layers.length * CELL_HEIGHT;
  const numbers = Array.from(
    { length: columns },
    (_, head) =>
      html`<text class="tick" x="${percent((head + 0.5) / columns)}" y="${height + 13}" text-anchor="middle">${head}</text>`,
  );
  const counts = layers.flatMap((layer) => layer.counts ?? []);
  const total = layers.reduce((sum, { components }) => sum + components, 0);
  const outcome = counts.length > 0 ? `; ${describeCounts(counts.reduce(addCounts))}` : "";
  return html`<div class="chart marks heads">${plot({
    id: "heads",
    title: "Attention heads, layer by layer",
    description: `${total} heads in ${layers.length} layers${outcome}.`,
    height: height + LABEL_HEIGHT,
    body: [rows, numbers],
  })}</div>`;
}

/** The number of a layer where its name has one, such as "encoder.layer.3.attention.self.value". */
function layerLabel(name: string): string {
  return /\d+/.exec(name)?.[0] ?? name;
}

function row(
  { name, scores, standardErrors, decisions, ranks }: ScoredGroup,
  top: number,
  columns: number,
  { height }: ScoreScale,
): Html {
  const middle = top + CELL_HEIGHT / 2;
  const cells = scores.map((score, head) => {
    const error = standardErrors[head];
    const decision: Decision | undefined = decisions?.[head];
    const x = percent((head + 0.06) / columns);
    const width = percent(0.88 / columns);
    const strength = (FAINTEST + (1 - FAINTEST) * height(score)).toFixed(3);
    const spread = error ? ` ± ${formatNumber(error)}` : "";
    const rank = ranks?.[head];
    const fate = decision === undefined ? "" : `, ${fates[decision]}`;
    const attending = rank === undefined ? "" : `, rank ${rank}`;
    // Told from the others without colour.
    const cross =
      decision === "prune" &&
      html`<line class="gone" x1="${x}" x2="${percent((head + 0.94) / columns)}" y1="${top + CELL_HEIGHT - 2}" y2="${top + 2}"/>`;
    const frame =
      decision === "implant" &&
      html`<rect class="frame" x="${x}" width="${width}" y="${top + 2}" height="${CELL_HEIGHT - 4}"/>`;
    const number =
      rank !== undefined &&
      html`<text class="rank" x="${percent((head + 0.5) / columns)}" y="${middle}" dy=".32em" text-anchor="middle">${rank}</text>`;
    return mark(
      `Layer ${layerLabel(name)}, head ${head}: ${formatNumber(score)}${spread}${fate}${attending}`,
      html`<rect class="${decision ?? "keep"}" x="${x}" width="${width}" y="${top + 2}" height="${CELL_HEIGHT - 4}" opacity="${strength}"/>${cross}${frame}${number}`,
      html` data-head="${head}" data-score="${score}" data-error="${error ?? undefined}"${decision && html` data-decision="${decision}"`}`,
    );
  });
  return html`<g data-layer="${name}"><text class="row" x="-8" y="${middle}" dy=".32em" text-anchor="end">${layerLabel(name)}</text>${cells}</g>`;
}
