/** @file What must hold of every executor, as comparisons with float64. */
import { type ErrorCode, EspalierError } from "@espalier/base";
import type { DeviceTensor, Executor, Tensor } from "../executor.ts";
import { interpret } from "../interpret.ts";
import { add, multiply } from "../ops/elementwise.ts";
import { input, isInput, scalar } from "../ops/leaf.ts";
import { reshape, sum } from "../ops/shape.ts";
import {
  type DType,
  type NdArray,
  sameShape,
  type TensorData,
  topologicalOrder,
  type Value,
} from "../value.ts";
import { conformanceCases, conformanceProblem, discreteCases } from "./cases.ts";

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

async function deviations(
  executor: Executor,
  outputs: Readonly<Record<string, Value>>,
  feeds: Readonly<Record<string, TensorData>>,
): Promise<readonly Deviation[]> {
  const values = Object.values(outputs);
  const given = topologicalOrder(values)
    .filter(isInput)
    .map((value) => [value, Array.from(feeds[value.attributes.name], Number)] as const);
  const expected = interpret(values, new Map(given));
  const program = await executor.compile({ outputs });
  try {
    const results = await program.run(feeds);
    return Object.keys(outputs).map((name, i) => deviationOf(name, results[name], expected[i]));
  } finally {
    await program.dispose();
  }
}

const operationChecks: readonly ConformanceCheck[] = [
  ...conformanceCases.map((entry) => ({
    name: entry.name,
    tolerance,
    run: async (executor: Executor) => {
      const { feeds, outputs } = conformanceProblem(entry);
      const named = Object.fromEntries(feeds.map((data, i) => [`x${i}`, data]));
      return deviations(executor, outputs, named);
    },
  })),
  ...discreteCases.map(({ name, feeds, outputs }) => ({
    name,
    tolerance,
    run: async (executor: Executor) => deviations(executor, outputs, feeds),
  })),
];

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
    name: "constants and what is kept do not change with what was given",
    tolerance,
    run: async (executor) => {
      const [a, b] = [input("a", [2]), input("b", [2])];
      const constant = Float32Array.of(10, 20);
      const program = await executor.compile({
        outputs: { total: add(a, b) },
        kept: { same: a, reshaped: reshape(a, [2, 1]) },
        constants: new Map([[b, constant]]),
      });
      constant.fill(7);
      const feed = Float32Array.of(1, 2);
      const { total, same, reshaped } = await program.run({ a: feed });
      feed.fill(7);
      const found: readonly [string, Tensor, readonly number[]][] = [
        ["constant", total, [11, 22]],
        ["kept", await inMemory(same), [1, 2]],
        ["kept and reshaped", await inMemory(reshaped), [1, 2]],
      ];
      for (const tensor of [same, reshaped]) tensor.dispose();
      await program.dispose();
      return found.map(([what, tensor, data]) =>
        deviationOf(what, tensor, { shape: tensor.shape, data: Float64Array.from(data) }),
      );
    },
  },
  {
    name: "tensors of another shape and what was disposed of are refused",
    tolerance,
    run: async (executor) => {
      const a = input("a", [2]);
      const feed = Float32Array.of(1, 2);
      const program = await executor.compile({ outputs: {}, kept: { column: reshape(a, [2, 1]) } });
      const { column } = await program.run({ a: feed });
      const message = (code: ErrorCode, promise: Promise<unknown>) =>
        promise.then(
          () => "no error",
          (error) => (EspalierError.isInstance(error, code) ? error.message : error),
        );
      const refused = await message("invalid-argument", program.run({ a: column }));
      column.dispose();
      const read = await message("runtime", column.read());
      await program.dispose();
      const run = await message("runtime", program.run({ a: feed }));
      expectEqual("shape", refused, "input a: expected float32[2], got float32[2,1]");
      const gone = "expected one that is still there, got one that was disposed of";
      expectEqual("tensor", read, `tensor: ${gone}`);
      expectEqual("program", run, `program: ${gone}`);
      return [];
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
    name: "feeds that are missing, too long or of another type are named",
    tolerance,
    run: async (executor) => {
      const program = await executor.compile({
        outputs: { y: add(input("a", [2]), input("b", [])) },
      });
      const feeds = { b: Float32Array.of(1) };
      const messages = await Promise.all(
        [feeds, { ...feeds, a: new Float32Array(3) }, { ...feeds, a: new BigInt64Array(2) }].map(
          (given) =>
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
      expectEqual(
        "feed of another type",
        messages[2],
        "input a: expected a Float32Array of float32, got BigInt64Array",
      );
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
