import { describe, expect, test } from "vitest";
import { learningRateAt } from "./schedule.ts";

describe("learning rate", () => {
  test("rises to its peak in the warm-up", () => {
    const schedule = { name: "cosine", peak: 2, warmup: 0.1 } as const;
    const rates = Array.from({ length: 100 }, (_, step) => learningRateAt(schedule, step, 100));
    expect(rates[0]).toBeCloseTo(0.2);
    expect(rates[9]).toBe(2);
    expect(rates[10]).toBe(2);
    expect(Math.max(...rates)).toBe(2);
  });

  test("is lower where there are few steps", () => {
    const schedule = { name: "cosine", peak: 2, warmup: 0.1, fullFrom: 400 } as const;
    const highest = (steps: number) =>
      Math.max(
        ...Array.from({ length: steps }, (_, step) => learningRateAt(schedule, step, steps)),
      );
    expect([highest(100), highest(400), highest(500)]).toEqual([0.5, 2, 2]);
  });

  test("falls by half a cosine", () => {
    const schedule = { name: "cosine", peak: 1, warmup: 0 } as const;
    expect(learningRateAt(schedule, 50, 100)).toBeCloseTo(0.5);
    expect(learningRateAt(schedule, 99, 100)).toBeLessThan(0.001);
  });

  test("falls by a line", () => {
    expect(learningRateAt({ name: "linear", peak: 1, warmup: 0 }, 25, 100)).toBeCloseTo(0.75);
  });

  test("falls to a tenth at half and to a hundredth at three quarters", () => {
    const at = (step: number) => learningRateAt({ name: "step", peak: 1, warmup: 0 }, step, 100);
    expect([at(0), at(49), at(50), at(74), at(75), at(99)]).toEqual([1, 1, 0.1, 0.1, 0.01, 0.01]);
  });
});
