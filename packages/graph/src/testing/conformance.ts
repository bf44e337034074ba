/** @file What must hold of every executor, as comparisons with float64. */
import { EspalierError } from "@espalier/base";
import type { DeviceTensor, Executor, Tensor } from "../executor.ts";
import { interpret } from "../interpret.ts";
import { add, multiply } from "../ops/elementwise.ts";
import { input, scalar } from "../ops/leaf.ts";
import { sum } from "../ops/shape.ts";
import { type DType, type NdArray, sameShape } from "../value.ts";
import { conformanceCases, conformanceProblem } from "./cases.ts";

/** How far one result is from the reference. */
export interface Deviation {
  readonly output: string;
  readonly dtype: DType;
  /** Largest difference of an element, relative to the largest element; infinite where not finite. */
  readonly error: number;
}

export interface ConformanceCheck {
  readonly name: string;
  /** Largest error of results of each type; integers are exact. */
  readonly tolerance: Readonly<Record<DType, number>>;
  run(executor: Executor): Promise<readonly Deviation[]>;
}

/** Of single operations and their derivatives: float32 has 6e-8 per operation. */
const tolerance = { float32: 2e-6, int64: 0, bool: 0 };

/**
 * Compares a result with the reference.
 *
 * @param leastScale Below it, results are nearly zero throughout, and the error is absolute.
 */
export function deviationOf(
  output: string,
  actual: Tensor,
  expected: NdArray,
  leastScale = 1e-3,
): Deviation {
  const { dtype, data } = actual;
  const fits = sameShape(actual.shape, expected.shape) && data.length === expected.data.length;
  if (!fits) return { output, dtype, error: Number.POSITIVE_INFINITY };
  const scale = expected.data.reduce((a, b) => Math.max(a, Math.abs(b)), leastScale);
  const error = expected.data.reduce((worst, wanted, i) => {
    const difference = Math.abs(wanted - Number(data[i])) / scale;
    return Number.isFinite(difference) ? Math.max(worst, difference) : Number.POSITIVE_INFINITY;
  }, 0);
  return { output, dtype, error };
}

const operationChecks: readonly ConformanceCheck[] = conformanceCases.map((entry) => ({
  name: entry.name,
  tolerance,
  run: async (executor) => {
    const { inputs, feeds, outputs } = conformanceProblem(entry);
    const values = Object.values(outputs);
    const expected = interpret(values, new Map(inputs.map((value, i) => [value, feeds[i]])));
    const program = await executor.compile({ outputs });
    try {
      const results = await program.run(
        Object.fromEntries(feeds.map((data, i) => [`x${i}`, data])),
      );
      return Object.keys(outputs).map((name, i) => deviationOf(name, results[name], expected[i]));
    } finally {
      await program.dispose();
    }
  },
}));

/** What programs are bound to do with what they are given. */
const contractChecks: readonly ConformanceCheck[] = [
  {
    name: "inputs bound as constants are no longer fed",
    tolerance,
    run: async (executor) => {
      const [a, b] = [input("a", [2]), input("b", [2])];
      const program = await executor.compile({
        outputs: { total: add(a, b) },
        constants: new Map([[b, Float32Array.of(10, 20)]]),
      });
      expectEqual("inputs", program.inputs.map(({ name }) => name).join(), "a");
      const { total } = await program.run({ a: Float32Array.of(1, 2) });
      await program.dispose();
      return [deviationOf("total", total, { shape: [2], data: Float64Array.of(11, 22) })];
    },
  },
  {
    name: "results are the receiver's, feeds the giver's",
    tolerance,
    run: async (executor) => {
      const a = input("a", [2]);
      const program = await executor.compile({ outputs: { same: a, twice: add(a, a) } });
      const feed = Float32Array.of(1, 2);
      const { same } = await program.run({ a: feed });
      feed.fill(7);
      const again = await program.run({ a: Float32Array.of(3, 4) });
      await program.dispose();
      return [
        deviationOf("first", same, { shape: [2], data: Float64Array.of(1, 2) }),
        deviationOf("second", again.twice, { shape: [2], data: Float64Array.of(6, 8) }),
      ];
    },
  },
  {
    name: "what is kept is fed to other programs, and read",
    tolerance,
    run: async (executor) => {
      const a = input("a", [2]);
      const doubling = await executor.compile({
        outputs: { sum: sum(a) },
        kept: { same: a, twice: add(a, a) },
      });
      const halving = await executor.compile({ outputs: { half: multiply(a, scalar(0.5)) } });
      const first = await doubling.run({ a: Float32Array.of(1, 2) });
      const second = await doubling.run({ a: first.twice });
      const { half } = await halving.run({ a: second.twice });
      const found: readonly [string, Tensor, readonly number[]][] = [
        ["result beside it", second.sum, [6]],
        ["fed twice", half, [2, 4]],
        ["read", await inMemory(second.twice), [4, 8]],
        ["handed through", await inMemory(first.same), [1, 2]],
      ];
      for (const { same, twice } of [first, second])
        for (const each of [same, twice]) each.dispose();
      for (const program of [doubling, halving]) await program.dispose();
      return found.map(([what, tensor, data]) =>
        deviationOf(what, tensor, { shape: tensor.shape, data: Float64Array.from(data) }),
      );
    },
  },
  {
    name: "feeds that are missing or too long are named",
    tolerance,
    run: async (executor) => {
      const program = await executor.compile({
        outputs: { y: add(input("a", [2]), input("b", [])) },
      });
      const feeds = { b: Float32Array.of(1) };
      const messages = await Promise.all(
        [feeds, { ...feeds, a: new Float32Array(3) }].map((given) =>
          program.run(given).then(
            () => "no error",
            (error) =>
              EspalierError.isInstance(error, "invalid-argument") ? error.message : error,
          ),
        ),
      );
      await program.dispose();
      expectEqual("missing feed", messages[0], "input a: expected 2 elements, got none");
      expectEqual("long feed", messages[1], "input a: expected 2 elements, got 3");
      return [];
    },
  },
];

async function inMemory(tensor: DeviceTensor): Promise<Tensor> {
  const { dtype, shape } = tensor;
  return { dtype, shape, data: await tensor.read() };
}

function expectEqual(what: string, actual: unknown, expected: string): void {
  if (actual !== expected) throw new Error(`${what}: expected "${expected}", got "${actual}"`);
}

/** Every operation in every way of using it with its derivatives, and the contract of programs. */
export const conformanceChecks: readonly ConformanceCheck[] = [
  ...operationChecks,
  ...contractChecks,
];

/** Runs a check. @throws Error naming the results that are not within its tolerance. */
export async function expectConformance(
  check: ConformanceCheck,
  executor: Executor,
): Promise<readonly Deviation[]> {
  const deviations = await check.run(executor);
  const wrong = deviations.filter(({ dtype, error }) => !(error <= check.tolerance[dtype]));
  if (wrong.length === 0) return deviations;
  const found = wrong.map(
    ({ output, dtype, error }) => `${output} ${error.toExponential(1)} (${check.tolerance[dtype]})`,
  );
  throw new Error(
    `${executor.name}: ${check.name}: expected errors within the tolerance, got ${found.join(", ")}`,
  );
}
