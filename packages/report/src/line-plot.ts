/** @file Plots as files of their own, which look the same wherever they are shown. */
import { linearScale, logScale, pixels, type Scale } from "./chart.ts";
import { formatNumber, formatPower } from "./format.ts";
import { type Html, html } from "./html.ts";
import { themes } from "./style.ts";

export interface PlotAxis {
  /** What it shows, with the unit. */
  readonly label: string;
  readonly scale?: "linear" | "log" | undefined;
}

export interface PlotSeries {
  readonly name: string;
  /** In the order in which they are joined. */
  readonly points: readonly { readonly x: number; readonly y: number; readonly text?: string }[];
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

const [WIDTH, HEIGHT] = [760, 420];
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 560, 40, 370];
const LINE_HEIGHT = 18;

const RADIUS = 4;

// Okabe and Ito's palette without its yellow, which is too light on white (jfly.uni-koeln.de/color).
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

// Shapes differ where colours repeat or are not seen, around the origin.
const shapes = [
  `M0 ${-RADIUS}A${RADIUS} ${RADIUS} 0 1 1 0 ${RADIUS}A${RADIUS} ${RADIUS} 0 1 1 0 ${-RADIUS}Z`,
  "M-3.6 -3.6H3.6V3.6H-3.6Z",
  "M0 -5L4.5 3.5H-4.5Z",
  "M0 -5L5 0L0 5L-5 0Z",
  "M0 5L4.5 -3.5H-4.5Z",
];

/** A scale with room at both ends. */
function scaleFor(
  { scale }: PlotAxis,
  values: readonly number[],
  range: readonly [number, number],
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
 * Lines through points with a legend, as an SVG document of fixed size on white.
 *
 * @returns The document; without any point, one that says so.
 */
export function linePlot({ title, description, x, y, series }: LinePlotOptions): string {
  const { ink, quiet, line, paper } = themes.light;
  const points = series.flatMap((each) => each.points);
  const frame = (body: Html) =>
    `${
      html`<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="system-ui,sans-serif" font-size="12" fill="${ink}"><title>${title}</title><desc>${description}</desc><rect width="${WIDTH}" height="${HEIGHT}" fill="${paper}"/><text x="${LEFT}" y="22" font-size="15" font-weight="600">${title}</text>${body}</svg>`
        .text
    }\n`;
  if (points.length === 0) {
    return frame(
      html`<text x="${LEFT}" y="${TOP + 20}" fill="${quiet}">nothing measured yet</text>`,
    );
  }
  const toX = scaleFor(
    x,
    points.map((point) => point.x),
    [LEFT, RIGHT],
    6,
  );
  const toY = scaleFor(
    y,
    points.map((point) => point.y),
    [BOTTOM, TOP],
    6,
  );
  const label = ({ scale }: PlotAxis, value: number) =>
    scale === "log" ? formatPower(value) : formatNumber(value);
  const axes = html`<g stroke="${line}">${toY.ticks.map((tick) => html`<line x1="${LEFT}" x2="${RIGHT}" y1="${pixels(toY(tick))}" y2="${pixels(toY(tick))}"/>`)}${toX.ticks.map((tick) => html`<line x1="${pixels(toX(tick))}" x2="${pixels(toX(tick))}" y1="${TOP}" y2="${BOTTOM}"/>`)}</g><g fill="${quiet}">${toY.ticks.map((tick) => html`<text x="${LEFT - 8}" y="${pixels(toY(tick))}" dy=".32em" text-anchor="end">${label(y, tick)}</text>`)}${toX.ticks.map((tick) => html`<text x="${pixels(toX(tick))}" y="${BOTTOM + 18}" text-anchor="middle">${label(x, tick)}</text>`)}</g><text x="${(LEFT + RIGHT) / 2}" y="${BOTTOM + 40}" text-anchor="middle">${x.label}</text><text transform="translate(16 ${(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${y.label}</text>`;
  const drawn = series.map(({ name, points, scattered }, i) => {
    const colour = scattered ? quiet : colours[i % colours.length];
    const shape = shapes[i % shapes.length];
    const path = points.map((at) => `${pixels(toX(at.x))} ${pixels(toY(at.y))}`).join("L");
    const row = TOP + 10 + i * LINE_HEIGHT;
    return html`<g fill="${scattered ? "none" : colour}" stroke="${colour}">${!scattered && points.length > 1 && html`<path d="M${path}" fill="none" stroke-width="1.8" stroke-linejoin="round"/>`}${points.map(
      (at) =>
        html`<path d="${shape}" transform="translate(${pixels(toX(at.x))} ${pixels(toY(at.y))})"><title>${at.text ?? `${name}: ${formatNumber(at.x)}, ${formatNumber(at.y)}`}</title></path>`,
    )}<path d="${shape}" transform="translate(${RIGHT + 20} ${row})"/></g><text x="${RIGHT + 32}" y="${row}" dy=".32em">${name}</text>`;
  });
  return frame(html`${axes}${drawn}`);
}
