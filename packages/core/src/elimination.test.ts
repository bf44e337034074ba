import { describe, expect, test } from "vitest";
import { solvePositive } from "./cholesky.ts";
import { eliminationCosts } from "./elimination.ts";
import { Random } from "./random.ts";

/** Mean products [1 + m, 1 + m] of a one and the channels. */
function productsOf(observations: readonly (readonly number[])[]): Float64Array {
  const n = observations[0].length + 1;
  const products = new Float64Array(n * n);
  for (const each of observations) {
    const row = [1, ...each];
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) products[i * n + j] += (row[i] * row[j]) / observations.length;
    }
  }
  return products;
}

function draw(count: number, of: (normal: () => number) => number[], seed = 0): number[][] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => of(() => random.normal()));
}

/** ½ Σ G_cd R_cd over a set, R being the mean products of what the other channels do not predict. */
function costOfSet(
  activations: Float64Array,
  gradients: Float64Array,
  removed: readonly number[],
): number {
  const channels = Math.sqrt(gradients.length);
  const n = channels + 1;
  const kept = [0, ...Array.from({ length: channels }, (_, c) => c + 1)].filter(
    (i) => !removed.includes(i - 1),
  );
  const k = kept.length;
  const system = new Float64Array((k + removed.length) * k);
  kept.forEach((i, row) => {
    kept.forEach((j, column) => {
      system[row * k + column] = activations[i * n + j];
    });
  });
  removed.forEach((c, row) => {
    kept.forEach((j, column) => {
      system[(k + row) * k + column] = activations[(c + 1) * n + j];
    });
  });
  const predictors = solvePositive(system, k)!;
  let total = 0;
  removed.forEach((c, p) => {
    for (const d of removed) {
      let residual = activations[(c + 1) * n + d + 1];
      kept.forEach((j, column) => {
        residual -= predictors[p * k + column] * activations[(d + 1) * n + j];
      });
      total += (gradients[c * channels + d] * residual) / 2;
    }
  });
  return total;
}

const channels = 6;
const mixed = draw(500, (normal) => {
  const sources = Array.from({ length: channels }, normal);
  return sources.map((source, c) => 1 + source + 0.8 * sources[(c + 1) % channels]);
});
// With the ridge of the function, so that both invert the same.
const activations = productsOf(mixed);
const ridge = (() => {
  const n = channels + 1;
  let variance = 0;
  for (let i = 1; i < n; i++) variance += activations[i * n + i] - activations[i * n] ** 2;
  return (1e-3 * variance) / channels;
})();
const n = channels + 1;
const held = activations.map((value, k) => (k > 0 && k % (n + 1) === 0 ? value + ridge : value));
const gradients = (() => {
  const all = productsOf(
    draw(
      50,
      (normal) => {
        const common = normal();
        return Array.from({ length: channels }, (_, c) => normal() + common * (c % 3));
      },
      1,
    ),
  );
  return Float64Array.from(
    { length: channels ** 2 },
    (_, k) => all[(Math.floor(k / channels) + 1) * n + (k % channels) + 1],
  );
})();
const alone = Float64Array.from(
  { length: channels },
  (_, c) => (gradients[c * (channels + 1)] * activations[(c + 1) * (n + 1)]) / 2,
);

describe("costs of eliminating channels", () => {
  test("add up to what a set costs together", () => {
    const costs = eliminationCosts({ activations, gradients }, alone);
    const order = [...costs.keys()].sort((a, b) => costs[a] - costs[b]);
    let total = 0;
    for (let count = 1; count <= channels; count++) {
      total += costs[order[count - 1]];
      expect(total).toBeCloseTo(costOfSet(held, gradients, order.slice(0, count)), 9);
    }
  });

  test("are less than with nothing fitted", () => {
    const costs = eliminationCosts({ activations, gradients }, alone);
    const cheapest = Math.min(...costs);
    expect(cheapest).toBeGreaterThan(0);
    expect(cheapest).toBeLessThan(Math.min(...alone) / 2);
  });

  test("agree with given costs of removal before anything is fitted", () => {
    const uncorrelated = productsOf(draw(20_000, (normal) => [normal(), normal(), normal()]));
    const identity = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    const removal = [3, 0.5, 8];
    const costs = eliminationCosts({ activations: uncorrelated, gradients: identity }, removal);
    costs.forEach((cost, c) => {
      expect(cost / removal[c]).toBeCloseTo(1, 1);
    });
  });

  test("are next to nothing for a channel that others make up for, and whole once they are gone", () => {
    const sums = productsOf(
      draw(2000, (normal) => {
        const [a, b] = [normal(), normal()];
        return [a, b, a + b];
      }),
    );
    const identity = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    const costs = eliminationCosts({ activations: sums, gradients: identity }, [1, 1, 1]);
    const sorted = [...costs].sort((a, b) => a - b);
    expect(sorted[0]).toBeLessThan(0.01);
    expect(sorted[1]).toBeGreaterThan(0.2);
  });

  test("are nothing for channels that do not vary, or that nothing comes of", () => {
    const constant = productsOf(draw(200, (normal) => [5, normal(), 0]));
    const part = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
    const costs = eliminationCosts({ activations: constant, gradients: part }, [7, 1, 0]);
    expect(costs[0]).toBeLessThan(0.01);
    expect(costs[1]).toBeGreaterThan(0.9);
    expect(costs[2]).toBe(0);
    const nothing = new Float64Array(9);
    expect([...eliminationCosts({ activations: constant, gradients: nothing }, [0, 0, 0])]).toEqual(
      [0, 0, 0],
    );
    expect([
      ...eliminationCosts({ activations: productsOf([[0, 0, 0]]), gradients: part }, [0, 0, 0]),
    ]).toEqual([0, 0, 0]);
  });

  test("are not made of what is no number", () => {
    const broken = activations.slice();
    broken[2 * n + 1] = Number.NaN;
    expect(() => eliminationCosts({ activations: broken, gradients }, alone)).toThrow(
      "channel moments: expected products of 6 channels that are finite",
    );
  });
});
