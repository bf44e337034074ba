import { describe, expect, test } from "vitest";
import { Random } from "./random.ts";

const draws = (random: Random, count: number) =>
  Array.from({ length: count }, () => random.uniform());

describe("Random", () => {
  test("equal seeds give equal streams, others do not", () => {
    expect(draws(new Random(7), 5)).toEqual(draws(new Random(7), 5));
    expect(draws(new Random(7), 5)).not.toEqual(draws(new Random(8), 5));
  });

  test("a named stream does not depend on how far its parent was read", () => {
    const [fresh, used] = [new Random("a"), new Random("a")];
    draws(used, 100);
    expect(draws(fresh.stream("tune", 3), 5)).toEqual(draws(used.stream("tune", 3), 5));
    expect(draws(fresh.stream("tune", 3), 5)).not.toEqual(draws(fresh.stream("tune", 4), 5));
  });

  test("moments of uniform, normal and sign", () => {
    const random = new Random(1);
    const count = 40_000;
    const mean = (next: () => number) => {
      let [total, squares] = [0, 0];
      for (let i = 0; i < count; i++) {
        const x = next();
        total += x;
        squares += x * x;
      }
      return [total / count, squares / count];
    };
    // Five standard errors of the mean.
    const within = 5 / Math.sqrt(count);
    expect(Math.abs(mean(() => random.uniform())[0] - 0.5)).toBeLessThan(within);
    const [average, variance] = mean(() => random.normal());
    expect(Math.abs(average)).toBeLessThan(within);
    expect(Math.abs(variance - 1)).toBeLessThan(2 * within);
    const [balance, one] = mean(() => random.sign());
    expect(Math.abs(balance)).toBeLessThan(within);
    expect(one).toBe(1);
  });

  test("a permutation holds every number once", () => {
    const order = new Random(2).permutation(1000);
    expect([...order].sort((a, b) => a - b)).toEqual([...Array(1000).keys()]);
    expect(order[0] === 0 && order[1] === 1).toBe(false);
  });
});
