import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { linearScale, logScale, plot, type Scale } from "./chart.ts";
import { html } from "./html.ts";

const range = [90, 10] as const;

function expectScale(scale: Scale, low: number, high: number, values: readonly number[]): void {
  expect(scale(low)).toBeCloseTo(range[0], 6);
  expect(scale(high)).toBeCloseTo(range[1], 6);
  const places = [...values].sort((a, b) => a - b).map(scale);
  for (const [i, place] of places.entries()) {
    expect(place).toBeGreaterThanOrEqual(range[1] - 1e-6);
    expect(place).toBeLessThanOrEqual(range[0] + 1e-6);
    if (i > 0) expect(place).toBeLessThanOrEqual(places[i - 1] + 1e-6);
  }
  for (const [i, tick] of scale.ticks.entries()) {
    expect(tick).toBeGreaterThanOrEqual(low);
    expect(tick).toBeLessThanOrEqual(high);
    if (i > 0) expect(tick).toBeGreaterThan(scale.ticks[i - 1]);
  }
}

const values = fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }));

describe("linear scales", () => {
  const domain = fc
    .tuple(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
    )
    .map(([low, width]) => [low, low + width] as const);

  test("go from end to end, in order, and stay inside", () => {
    fc.assert(
      fc.property(domain, values, fc.integer({ min: 1, max: 8 }), ([low, high], list, ticks) => {
        const scale = linearScale([low, high], range, ticks);
        expectScale(scale, low, high, list);
        expect(scale.ticks.length).toBeLessThanOrEqual(ticks + 1);
      }),
    );
  });

  test("label round numbers", () => {
    expect(linearScale([0.597, 0.8586], range, 4).ticks).toEqual([0.6, 0.7, 0.8]);
    expect(linearScale([0, 64], range, 4).ticks).toEqual([0, 20, 40, 60]);
    expect(linearScale([0, 0.3], range, 3).ticks).toEqual([0, 0.1, 0.2, 0.3]);
  });

  test("a single value lies in the middle", () => {
    const scale = linearScale([3, 3], range, 4);
    expect(scale(3)).toBe(50);
    expect(scale.ticks).toEqual([3]);
  });
});

describe("logarithmic scales", () => {
  const exponent = fc.double({ min: -12, max: 6, noNaN: true });
  const domain = fc
    .tuple(exponent, fc.double({ min: 1e-3, max: 10, noNaN: true }))
    .map(([low, decades]) => [10 ** low, 10 ** (low + decades)] as const);

  test("go from end to end, in order, and stay inside", () => {
    fc.assert(
      fc.property(
        domain,
        fc.array(exponent.map((power) => 10 ** power)),
        fc.integer({ min: 1, max: 8 }),
        ([low, high], list, ticks) => {
          const scale = logScale([low, high], range, ticks);
          expectScale(scale, low, high, list);
          expect(scale.ticks.length).toBeLessThanOrEqual(ticks);
        },
      ),
    );
  });

  test("give every factor of ten the same length", () => {
    const scale = logScale([1e-4, 1], range, 10);
    expect(scale.ticks.map(scale)).toEqual([90, 70, 50, 30, 10]);
  });

  test("a single value lies in the middle", () => {
    expect(logScale([0.5, 0.5], range, 4)(0.5)).toBe(50);
  });
});

test("a chart says what it is to those who do not see it", () => {
  const { text } = plot({ id: "a", title: "T<", description: "D", height: 9, body: html`<g/>` });
  expect(text).toContain('role="img" aria-labelledby="a-title a-description"');
  expect(text).toContain('<title id="a-title">T&lt;</title><desc id="a-description">D</desc><g/>');
});
