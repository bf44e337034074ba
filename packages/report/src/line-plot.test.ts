import { expect, test } from "vitest";
import { type LinePlotOptions, linePlot } from "./line-plot.ts";

const options: LinePlotOptions = {
  title: "Accuracy & cost",
  description: "Accuracies",
  x: { label: "MACs, millions" },
  y: { label: "accuracy, %" },
  series: [
    {
      name: "a<b",
      points: [
        { x: 10, y: 80 },
        { x: 20, y: 90, text: "the second" },
      ],
    },
    { name: "others", scattered: true, points: [{ x: 15, y: 85 }] },
  ],
};

/** The places of the marks of a plot, across in per cent. */
const places = (svg: string) =>
  [...svg.matchAll(/<title>([^<]*)<\/title>(?:<line[^>]*>)?<svg x="(\S+)%" y="(\S+)"/g)].map(
    ([, text, x, y]) => ({ x: Number(x), y: Number(y), text }),
  );
const joined = /<line [^>]*stroke-width/g;

test("larger values are further right and higher up, and scattered points are not joined", () => {
  const svg = linePlot(options);
  const [first, second, third] = places(svg);
  expect(first.x).toBeLessThan(third.x);
  expect(third.x).toBeLessThan(second.x);
  expect(first.y).toBeGreaterThan(third.y);
  expect(third.y).toBeGreaterThan(second.y);
  // Half way in value is half way in place.
  expect(third.x).toBeCloseTo((first.x + second.x) / 2, 0);
  expect(svg.match(joined)).toHaveLength(1);
  expect([first.text, second.text]).toEqual(["a&lt;b: 10, 80", "the second"]);
  expect(svg).toContain("Accuracy &amp; cost");
});

test("on logarithmic axes equal ratios are equal distances", () => {
  const points = [1, 10, 100].map((x) => ({ x, y: x }));
  const axis = { label: "", scale: "log" } as const;
  const [a, b, c] = places(
    linePlot({ ...options, x: axis, y: axis, series: [{ name: "", points }] }),
  );
  expect(b.x - a.x).toBeCloseTo(c.x - b.x, 0);
  expect(b.y - a.y).toBeCloseTo(c.y - b.y, 0);
});

test("what is spread has whiskers, for which there is room", () => {
  const svg = linePlot({
    ...options,
    series: [{ name: "spread", points: [{ x: 1, y: 5, spread: 2 }] }],
  });
  const [{ y }] = places(svg);
  const [, low, high] = svg.match(/y1="(\S+)" y2="(\S+)" stroke-opacity/)!.map(Number);
  expect(low - y).toBeCloseTo(y - high);
  expect(high).toBeGreaterThan(0);
});

test("a series without points is not in the legend, and keeps its look from others", () => {
  const [first, ...others] = options.series;
  const colour = (svg: string) => svg.match(/data-series="others" fill="\S+" stroke="(\S+)"/)![1];
  const svg = linePlot({ ...options, series: [{ ...first, points: [] }, ...others] });
  expect(colour(svg)).toBe(colour(linePlot(options)));
  expect(svg).not.toContain(">a&lt;b</text>");
  expect(svg).toContain(">others</text>");
});

test("one point, equal points and none are plots too", () => {
  const one = linePlot({ ...options, series: [{ name: "one", points: [{ x: 0, y: 5 }] }] });
  expect(places(one)).toHaveLength(1);
  expect(one).not.toMatch(/NaN|Infinity/);
  expect(linePlot({ ...options, series: [] })).toContain("nothing measured yet");
});
