import { Random } from "@espalier/core";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { trainingOrder } from "./order.ts";

const draw = (seed: number, count: number) => {
  const random = new Random(seed);
  return Uint32Array.from({ length: count }, () => 16 * (1 + random.integer(8)));
};

/** What all batches together are filled up to. */
function positions(order: Uint32Array, lengths: Uint32Array, batchSize: number): number {
  let sum = 0;
  for (let start = 0; start < order.length; start += batchSize) {
    const batch = [...order.subarray(start, start + batchSize)];
    sum += batchSize * Math.max(...batch.map((i) => lengths[i]));
  }
  return sum;
}

describe("the order of an epoch", () => {
  test("has whole batches of different samples, whatever their lengths", () => {
    fc.assert(
      fc.property(
        fc.nat(),
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 1, max: 40 }),
        (seed, count, batchSize) => {
          for (const lengths of [undefined, draw(seed, count)]) {
            const order = trainingOrder({ count, lengths }, batchSize, new Random(seed));
            expect(order.length).toBe(Math.floor(count / batchSize) * batchSize);
            expect(new Set(order).size).toBe(order.length);
            expect(Math.max(-1, ...order)).toBeLessThan(count);
            expect(trainingOrder({ count, lengths }, batchSize, new Random(seed))).toEqual(order);
          }
        },
      ),
    );
  });

  test("puts sequences of like length together, and batches of all lengths everywhere", () => {
    const [count, batchSize] = [3200, 32];
    const lengths = draw(1, count);
    const order = trainingOrder({ count, lengths }, batchSize, new Random(2));
    const filled = positions(order, lengths, batchSize);
    const least = lengths.reduce((a, b) => a + b, 0);
    expect(filled / least).toBeLessThan(1.03);
    const mixed = trainingOrder({ count, lengths: undefined }, batchSize, new Random(2));
    expect(positions(mixed, lengths, batchSize) / least).toBeGreaterThan(1.5);
    // Short ones are not all at one end.
    const mean = (half: Uint32Array) => half.reduce((sum, i) => sum + lengths[i], 0) / half.length;
    const middle = order.length / 2;
    const halves = [order.subarray(0, middle), order.subarray(middle)].map(mean);
    expect(Math.abs(halves[0] - halves[1])).toBeLessThan(20);
    const next = trainingOrder({ count, lengths }, batchSize, new Random(3));
    expect(next).not.toEqual(order);
  });

  test("leaves out samples of all lengths", () => {
    const lengths = Uint32Array.from({ length: 100 }, (_, i) => (i < 50 ? 16 : 128));
    let short = 0;
    for (let epoch = 0; epoch < 40; epoch++) {
      const order = new Set(trainingOrder({ count: 100, lengths }, 30, new Random(epoch)));
      for (let i = 0; i < 50; i++) if (!order.has(i)) short++;
    }
    expect(short).toBeGreaterThan(120);
    expect(short).toBeLessThan(280);
  });
});
