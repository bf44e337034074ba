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

/** The places of the marks of a plot, without those of the legend. */
const places = (svg: string) =>
  [...svg.matchAll(/translate\((\S+) (\S+)\)"><title>([^<]*)/g)].map(([, x, y, text]) => ({
    x: Number(x),
    y: Number(y),
    text,
  }));

test("larger values are further right and higher up, and scattered points are not joined", () => {
  const svg = linePlot(options);
  const [first, second, third] = places(svg);
  expect(first.x).toBeLessThan(third.x);
  expect(third.x).toBeLessThan(second.x);
  expect(first.y).toBeGreaterThan(third.y);
  expect(third.y).toBeGreaterThan(second.y);
  // Half way in value is half way in place.
  expect(third.x).toBeCloseTo((first.x + second.x) / 2, 0);
  expect(svg.match(/fill="none" stroke-width/g)).toHaveLength(1);
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

test("one point, equal points and none are plots too", () => {
  const one = linePlot({ ...options, series: [{ name: "one", points: [{ x: 0, y: 5 }] }] });
  expect(places(one)).toHaveLength(1);
  expect(one).not.toMatch(/NaN|Infinity/);
  expect(linePlot({ ...options, series: [] })).toContain("nothing measured yet");
});
