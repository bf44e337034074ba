/**
 * @file What charts are made of. Along x everything is a share of the width, in percent, along y it
 * is in pixels: a chart takes the width of its place and keeps the size of its letters.
 */
import { type Content, type Html, html } from "./html.ts";

/** From values to places. Values outside of the domain are moved to its nearest end. */
export interface Scale {
  (value: number): number;
  /** Values to label: ascending, within the domain. */
  readonly ticks: readonly number[];
}

export type Interval = readonly [number, number];

function scaleOf(
  transform: (value: number) => number,
  [low, high]: Interval,
  [from, to]: Interval,
  ticks: readonly number[],
): Scale {
  const [start, end] = [transform(low), transform(high)];
  const place = (value: number) => {
    const inside = Math.min(high, Math.max(low, value));
    // A domain of one value lies in the middle.
    const share = end === start ? 0.5 : (transform(inside) - start) / (end - start);
    return from + share * (to - from);
  };
  return Object.assign(place, { ticks });
}

/** The smallest of 1, 2, 5 times a power of ten that is at least `value`. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5].map((digit) => digit * power).find((step) => step >= value) ?? 10 * power;
}

/** A scale with at most `ticks` + 1 round values to label. */
export function linearScale(domain: Interval, range: Interval, ticks: number): Scale {
  const [low, high] = domain;
  const same = (value: number) => value;
  if (high <= low) return scaleOf(same, domain, range, [low]);
  const step = roundUp((high - low) / ticks);
  const first = Math.ceil(low / step);
  // Products such as 3 × 0.1 are rounded to what they mean.
  const labels = Array.from({ length: ticks + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  ).filter((label) => label >= low && label <= high);
  return scaleOf(same, domain, range, labels);
}

/** A logarithmic scale of numbers above 0 with at most `ticks` powers of ten to label. */
export function logScale(domain: Interval, range: Interval, ticks: number): Scale {
  const [low, high] = domain;
  const powers: number[] = [];
  // Read from text, powers are the nearest numbers; computed ones need not be.
  const power = (n: number) => Number(`1e${n}`);
  for (let n = Math.floor(Math.log10(high)) + 1; power(n) >= low; n--) {
    if (power(n) <= high) powers.unshift(power(n));
  }
  const every = Math.ceil(powers.length / ticks);
  const labels = powers.filter((_, i) => (powers.length - 1 - i) % every === 0);
  return scaleOf(Math.log10, domain, range, labels);
}

/** `share` of the width, for attributes. */
export function percent(share: number): string {
  return `${Number((100 * share).toFixed(2))}%`;
}

/** A length in pixels, for attributes. */
export function pixels(length: number): string {
  return String(Number(length.toFixed(1)));
}

export interface PlotOptions {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  /** What the chart shows, for those who do not see it. */
  readonly description: string;
  readonly height: number;
  readonly body: Content;
  readonly attributes?: Content;
}

/** A chart as wide as its place. */
export function plot({ id, title, description, height, body, attributes }: PlotOptions): Html {
  return html`<svg class="plot" role="img" aria-labelledby="${id}-title ${id}-description" width="100%" height="${height}"${attributes}><title id="${id}-title">${title}</title><desc id="${id}-description">${description}</desc>${body}</svg>`;
}

/** Horizontal lines at the ticks of `y`, labelled on the left. */
export function grid(y: Scale, label: (value: number) => string): Html {
  return html`<g class="grid">${y.ticks.map((tick) => {
    const at = pixels(y(tick));
    return html`<line x1="0" x2="100%" y1="${at}" y2="${at}"/><text x="-6" y="${at}" dy=".32em" text-anchor="end">${label(tick)}</text>`;
  })}</g>`;
}

// Curves are drawn in a box of this width that is stretched to that of the chart; their lines keep
// their own width (see the style `vector-effect`).
const CURVE_WIDTH = 1000;

/** A line through points (share of the width, pixels). */
export function curve(
  points: readonly (readonly [number, number])[],
  height: number,
  style: string,
): Html {
  const path = points.map(([x, y]) => `${pixels(CURVE_WIDTH * x)} ${pixels(y)}`).join("L");
  return html`<svg width="100%" height="${height}" viewBox="0 0 ${CURVE_WIDTH} ${height}" preserveAspectRatio="none"><path class="curve ${style}" d="M${path}"/></svg>`;
}

/** A part of a chart that says something of its own when pointed at. */
export function mark(text: string, body: Content, attributes: Content = ""): Html {
  return html`<g class="mark"${attributes}><title>${text}</title>${body}</g>`;
}
