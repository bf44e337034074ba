/** @file Scores and their errors: one small chart for each group of components. */
import { type Decision, leastSensitiveFirst } from "@espalier/core";
import { grid, linearScale, logScale, pixels, plot, type Scale } from "./chart.ts";
import { describeCounts } from "./explain.ts";
import { formatNumber, formatPower } from "./format.ts";
import { type Html, html } from "./html.ts";
import type { GroupSummary } from "./summary.ts";

const PANEL_HEIGHT = 112;
const TOP = 8;
// Scores that a logarithmic scale has no place for lie in a strip below it.
const STRIP_HEIGHT = 16;
// Scores this many times lower than all but a hundredth would squeeze all others.
const OUTLIER = 3;
// Points are placed in a box of this width that is stretched to that of the chart.
const BOX_WIDTH = 1000;

/** A scored group. */
export type ScoredGroup = GroupSummary & {
  readonly scores: readonly number[];
  readonly standardErrors: readonly (number | null)[];
};

/** The groups that have scores. */
export function scoredGroups(groups: readonly GroupSummary[]): ScoredGroup[] {
  return groups.filter((group): group is ScoredGroup => group.scores !== undefined);
}

export interface ScoreScale {
  /** In pixels. */
  readonly y: Scale;
  readonly label: (value: number) => string;
  /** Whether the score has a place on the scale rather than in the strip. */
  readonly shows: (score: number) => boolean;
  readonly strip: boolean;
  /** How far up the score is, from 0 to 1. */
  readonly height: (score: number) => number;
}

/** One scale for all groups. */
export function scoreScale(groups: readonly ScoredGroup[], metric: string): ScoreScale {
  const scores = groups.flatMap(({ scores }) => scores);
  const high = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const low = scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  // Random scores are as often below zero as above.
  if (metric === "random" || high <= 0) {
    const bottom = PANEL_HEIGHT - 6;
    const y = linearScale([low, high], [bottom, TOP], 4);
    const height = (score: number) => (bottom - y(score)) / (bottom - TOP);
    return { y, label: formatNumber, shows: () => true, strip: false, height };
  }
  const strip = low <= 0;
  const positive = scores.filter((score) => score > 0).sort((a, b) => a - b);
  const usual = positive[Math.floor(positive.length / 100)];
  const domain = [Math.max(positive[0], usual / OUTLIER), high] as const;
  const bottom = PANEL_HEIGHT - 6 - (strip ? STRIP_HEIGHT : 0);
  const y = logScale(domain, [bottom, TOP], 5);
  const shows = (score: number) => score > 0;
  const height = (score: number) => (shows(score) ? (bottom - y(score)) / (bottom - TOP) : 0);
  return { y, label: formatPower, shows, strip, height };
}

/** The components of each group from the least to the most sensitive. */
export function scorePanels(groups: readonly GroupSummary[], metric: string): Html {
  const scored = scoredGroups(groups);
  const scale = scoreScale(scored, metric);
  return html`<div class="panels marks">${scored.map((group, i) => panel(group, i, scale))}</div>`;
}

function panel(group: ScoredGroup, number: number, scale: ScoreScale): Html {
  const { name, layers, components, scores, counts } = group;
  const bottom = PANEL_HEIGHT - 2;
  const others = layers.length > 1 && html` <span class="quiet">+ ${layers.length - 1}</span>`;
  const left = counts && `${counts.keep + counts.implant} of ${components}`;
  const order = leastSensitiveFirst(scores);
  const [least, most] = [scores[order[0]], scores[order[components - 1]]].map(formatNumber);
  const zero =
    scale.strip &&
    html`<line class="zero" x1="0" x2="100%" y1="${bottom - STRIP_HEIGHT}" y2="${bottom - STRIP_HEIGHT}"/><text class="tick" x="-6" y="${bottom - STRIP_HEIGHT / 2}" dy=".32em" text-anchor="end">≤ 0</text>`;
  return html`<div class="panel" data-group="${name}"><p class="panel-name"><span title="${layers.join(", ")}">${breakable(name)}${others}</span><span class="quiet">${left ?? components}</span></p>${plot(
    {
      id: `sensitivity-${number}`,
      title: `Scores of ${name}`,
      description: `${components} components, scores from ${least} to ${most}${counts ? `; ${describeCounts(counts)}` : ""}.`,
      height: PANEL_HEIGHT,
      body: [grid(scale.y, scale.label), zero, points(group, order, scale)],
      attributes: html` data-scores="${number}"`,
    },
  )}</div>`;
}

/** A name that may be broken behind its dots. */
export function breakable(name: string): Html {
  return html`${name.split(/(?<=\.)/).map((part, i) => [i > 0 && html`<wbr>`, part])}`;
}

/**
 * Dots and their errors, one path of each for all components with the same decision: networks have
 * tens of thousands of components, and an element for each would stall a browser.
 */
function points(
  { components, scores, standardErrors, decisions }: ScoredGroup,
  order: readonly number[],
  { y, shows }: ScoreScale,
): Html {
  const bottom = PANEL_HEIGHT - 2;
  const dots = new Map<Decision | "score", string>();
  const bars = new Map<Decision | "score", string>();
  const add = (to: typeof dots, style: Decision | "score", path: string) =>
    to.set(style, (to.get(style) ?? "") + path);
  order.forEach((component, place) => {
    const score = scores[component];
    const error = standardErrors[component] ?? 0;
    const style = decisions?.[component] ?? "score";
    const x = pixels((BOX_WIDTH * (place + 0.5)) / components);
    add(dots, style, `M${x} ${pixels(shows(score) ? y(score) : bottom - STRIP_HEIGHT / 2)}h0`);
    if (error === 0 || !shows(score)) return;
    const [from, to] = [score - error, score + error].map((end) => (shows(end) ? y(end) : bottom));
    add(bars, style, `M${x} ${pixels(from)}V${pixels(to)}`);
  });
  const paths = (of: typeof dots, kind: string) =>
    [...of].map(([style, path]) => html`<path class="${kind} ${style}" d="${path}"/>`);
  return html`<svg width="100%" height="${PANEL_HEIGHT}" viewBox="0 0 ${BOX_WIDTH} ${PANEL_HEIGHT}" preserveAspectRatio="none">${paths(bars, "errors")}${paths(dots, "dots")}${
    // Hollow, to be told from the others without colour.
    dots.has("prune") && html`<path class="hollow" d="${dots.get("prune")}"/>`
  }</svg>`;
}
