/**
 * @file Plots of lines through points: files of their own, which look the same wherever they are
 * shown, and what pages show of the same plots.
 */
import {
  type Interval,
  linearScale,
  logScale,
  mark,
  percent,
  pixels,
  type Scale,
} from "./chart.ts";
import { formatNumber, formatPower } from "./format.ts";
import { type Html, html } from "./html.ts";
import { type Theme, themes } from "./style.ts";

export interface PlotAxis {
  /** What it shows, with the unit. */
  readonly label: string;
  readonly scale?: "linear" | "log" | undefined;
}

export interface PlotPoint {
  readonly x: number;
  readonly y: number;
  /** Of y, on both sides. */
  readonly spread?: number | undefined;
  /** What it is, in one line or several. */
  readonly text?: string | undefined;
}

export interface PlotSeries {
  readonly name: string;
  /** In the order in which they are joined; a series without any keeps its colour and shape. */
  readonly points: readonly PlotPoint[];
  /** Points of different things, which no line joins. */
  readonly scattered?: boolean | undefined;
}

export interface LinePlotOptions {
  readonly title: string;
  /** What the plot shows, for those who do not see it. */
  readonly description: string;
  readonly x: PlotAxis;
  readonly y: PlotAxis;
  readonly series: readonly PlotSeries[];
}

export type PlotColours = Pick<Theme, "ink" | "quiet" | "line">;

const [WIDTH, HEIGHT] = [760, 420];
const [LEFT, RIGHT, TOP] = [64, 560, 40];
const LINE_HEIGHT = 18;

/** Heights of a plot without its title: of what is inside of the axes, and with their labels. */
const INSIDE = 330;
export const BODY_HEIGHT = INSIDE + 48;

const RADIUS = 4;

// Okabe and Ito's palette without its yellow, which is too light on white (jfly.uni-koeln.de/color);
// its black is the colour of letters.
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", undefined];

// Shapes differ where colours repeat or are not seen, around the origin.
const shapes = [
  `M0 ${-RADIUS}A${RADIUS} ${RADIUS} 0 1 1 0 ${RADIUS}A${RADIUS} ${RADIUS} 0 1 1 0 ${-RADIUS}Z`,
  "M-3.6 -3.6H3.6V3.6H-3.6Z",
  "M0 -5L4.5 3.5H-4.5Z",
  "M0 -5L5 0L0 5L-5 0Z",
  "M0 5L4.5 -3.5H-4.5Z",
];

/** How the marks of series number `i` look. */
function look({ scattered }: PlotSeries, i: number, { ink, quiet }: PlotColours) {
  const colour = scattered ? quiet : (colours[i % colours.length] ?? ink);
  return {
    colours: html`fill="${scattered ? "none" : colour}" stroke="${colour}"`,
    shape: html`<path d="${shapes[i % shapes.length]}"/>`,
  };
}

export interface LegendEntry {
  readonly name: string;
  /** Around the origin, within 5 pixels. */
  readonly symbol: Html;
}

/** The series that have points. */
export function legendOf(series: readonly PlotSeries[], colours: PlotColours): LegendEntry[] {
  return series.flatMap((each, i) => {
    if (each.points.length === 0) return [];
    const { colours: attributes, shape } = look(each, i, colours);
    return [{ name: each.name, symbol: html`<g ${attributes}>${shape}</g>` }];
  });
}

/** `value` with as many decimals as tell evenly spaced ticks apart. */
function formatTick(value: number, ticks: readonly number[]): string {
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  const decimals = Math.min(20, Math.max(0, Math.ceil(-Math.log10(step) - 1e-6)));
  return value
    .toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals })
    .replace(/^-/, "−");
}

/** A scale with room at both ends. */
function scaleFor(
  { scale }: PlotAxis,
  values: readonly number[],
  range: Interval,
  ticks: number,
): Scale {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (scale === "log") {
    const room = Math.max(1.1, (high / low) ** 0.05);
    const [from, to] = [low / room, high * room];
    // With a power of ten or two, logarithmic places are hard to read off.
    return logScale(
      [10 ** Math.floor(Math.log10(from)), 10 ** Math.ceil(Math.log10(to))],
      range,
      ticks,
    );
  }
  const room = high > low ? 0.06 * (high - low) : Math.max(Math.abs(high) * 0.05, 1e-9);
  return linearScale([low - room, high + room], range, ticks);
}

/**
 * Axes, lines and marks: as wide as its place, the left axis at 0, and `BODY_HEIGHT` high. Labels of
 * the left axis take 60 pixels beside it.
 */
export function plotBody({ x, y, series }: LinePlotOptions, colours: PlotColours): Html {
  const { quiet, line } = colours;
  const points = series.flatMap((each) => each.points);
  if (points.length === 0) {
    return html`<text y="20" fill="${quiet}">nothing measured yet</text>`;
  }
  const xs = points.map((point) => point.x);
  const ys = points.flatMap(({ y: value, spread = 0 }) => [value - spread, value + spread]);
  const [toX, toY] = [scaleFor(x, xs, [0, 1], 6), scaleFor(y, ys, [INSIDE, 0], 6)];
  const [across, up] = [
    (value: number) => percent(toX(value)),
    (value: number) => pixels(toY(value)),
  ];
  const label = ({ scale }: PlotAxis, value: number, { ticks }: Scale) =>
    scale === "log" ? formatPower(value) : formatTick(value, ticks);
  const axes = html`<g stroke="${line}">${toY.ticks.map((tick) => html`<line x2="100%" y1="${up(tick)}" y2="${up(tick)}"/>`)}${toX.ticks.map((tick) => html`<line x1="${across(tick)}" x2="${across(tick)}" y2="${INSIDE}"/>`)}</g><g fill="${quiet}">${toY.ticks.map((tick) => html`<text x="-8" y="${up(tick)}" dy=".32em" text-anchor="end">${label(y, tick, toY)}</text>`)}${toX.ticks.map((tick) => html`<text x="${across(tick)}" y="${INSIDE + 18}" text-anchor="middle">${label(x, tick, toX)}</text>`)}</g><text x="50%" y="${INSIDE + 40}" text-anchor="middle">${x.label}</text><text transform="translate(-48 ${INSIDE / 2}) rotate(-90)" text-anchor="middle">${y.label}</text>`;
  const drawn = series.map((each, i) => {
    const { name, points: own, scattered } = each;
    const { colours: attributes, shape } = look(each, i, colours);
    const joined = own.slice(1).map((to, k) => {
      const from = own[k];
      return html`<line x1="${across(from.x)}" y1="${up(from.y)}" x2="${across(to.x)}" y2="${up(to.y)}" stroke-width="1.8" stroke-linecap="round"/>`;
    });
    const marks = own.map((at) => {
      const { x: value, y: height, spread, text } = at;
      const whisker =
        spread !== undefined &&
        html`<line x1="${across(value)}" x2="${across(value)}" y1="${up(height - spread)}" y2="${up(height + spread)}" stroke-opacity=".6"/>`;
      return mark(
        text ?? `${name}: ${formatNumber(value)}, ${formatNumber(height)}`,
        html`${whisker}<svg x="${across(value)}" y="${up(height)}" overflow="visible"><circle class="reach" r="10" fill="none" stroke="none"/>${shape}</svg>`,
      );
    });
    return html`<g data-series="${name}" ${attributes}>${!scattered && joined}${marks}</g>`;
  });
  return html`${axes}${drawn}`;
}

/**
 * Lines through points with a legend, as an SVG document of fixed size on white.
 *
 * @returns The document; without any point, one that says so.
 */
export function linePlot(options: LinePlotOptions): string {
  const { title, description, series } = options;
  const { light } = themes;
  const legend = legendOf(series, light).map(({ name, symbol }, i) => {
    const y = TOP + 10 + i * LINE_HEIGHT;
    return html`<g transform="translate(${RIGHT + 20} ${y})">${symbol}</g><text x="${RIGHT + 32}" y="${y}" dy=".32em">${name}</text>`;
  });
  const document = html`<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="system-ui,sans-serif" font-size="12" fill="${light.ink}"><title>${title}</title><desc>${description}</desc><rect width="${WIDTH}" height="${HEIGHT}" fill="${light.paper}"/><text x="${LEFT}" y="22" font-size="15" font-weight="600">${title}</text><svg x="${LEFT}" y="${TOP}" width="${RIGHT - LEFT}" height="${BODY_HEIGHT}" overflow="visible">${plotBody(options, light)}</svg>${legend}</svg>`;
  return `${document.text}\n`;
}
