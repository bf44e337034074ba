import { expect, test } from "vitest";
import { solvePositive } from "./cholesky.ts";
import { Random } from "./random.ts";

// Around the sizes that are computed together: 2, 4 and 64.
test.each([
  [1, 1],
  [3, 2],
  [4, 5],
  [63, 1],
  [66, 4],
  [131, 7],
])("%i unknowns, %i right-hand sides", (n, sides) => {
  const random = new Random(n);
  const factor = Float64Array.from({ length: n * n }, () => random.normal());
  const solution = Float64Array.from({ length: sides * n }, () => random.normal());
  const matrix = (i: number, j: number) => {
    let total = i === j ? 1 : 0;
    for (let k = 0; k < n; k++) total += factor[i * n + k] * factor[j * n + k];
    return total;
  };
  const rows = new Float64Array((n + sides) * n).fill(Number.NaN);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) rows[i * n + j] = matrix(i, j);
    for (let r = 0; r < sides; r++) {
      let total = 0;
      for (let j = 0; j < n; j++) total += matrix(i, j) * solution[r * n + j];
      rows[(n + r) * n + i] = total;
    }
  }
  const found = solvePositive(rows, n)!;
  expect(found).toHaveLength(sides * n);
  found.forEach((x, i) => {
    expect(x).toBeCloseTo(solution[i], 6);
  });
});

test.each([
  ["singular", [1, 0, 1, 1]],
  ["of both signs", [1, 0, 2, 1]],
  ["not finite", [1, 0, Number.NaN, 1]],
])("a matrix that is %s has no solution", (_, matrix) => {
  expect(solvePositive(Float64Array.from([...matrix, 1, 1]), 2)).toBeUndefined();
});
