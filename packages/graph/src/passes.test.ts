import { describe, expect, test } from "vitest";
import { jvp } from "./autodiff.ts";
import { cost } from "./cost.ts";
import { linear } from "./ops/contract.ts";
import { conv } from "./ops/convolution.ts";
import { add, divide, exp, multiply, negate, relu, tanh } from "./ops/elementwise.ts";
import { constant, input, integers, isConstant, scalar } from "./ops/leaf.ts";
import { logSoftmax, mean, softmax } from "./ops/normalize.ts";
import { broadcastTo, full, reshape, slice, transpose } from "./ops/shape.ts";
import { findCommon, simplify, splitSequence, splitStages, substitute, verify } from "./passes.ts";
import { conformanceCases, conformanceProblem, interpret, randomArray } from "./testing/index.ts";
import { sizeOf, topologicalOrder, type Value } from "./value.ts";

const x = input("x", [2, 3]);
const y = input("y", [2, 3]);
const zero = full([2, 3], 0);

describe("simplify", () => {
  test.each<[string, Value, Value]>([
    ["x + 0", add(x, zero), x],
    ["0 + x", add(zero, x), x],
    ["x · 1", multiply(x, scalar(1)), x],
    ["two transposes", transpose(transpose(x)), x],
    ["reshape back", reshape(reshape(x, [6]), [2, 3]), x],
    ["the whole as a slice", slice(x, 1, 0, 3), x],
    ["0 · x + y", add(multiply(zero, x), y), y],
    ["(x · 2) · 0.5", multiply(multiply(x, scalar(2)), scalar(0.5)), x],
  ])("%s", (_name, value, expected) => {
    expect(simplify([value])[0]).toBe(expected);
  });

  test("merges equal nodes", () => {
    const [result] = simplify([add(exp(x), multiply(exp(x), exp(x)))]);
    const exponentials = topologicalOrder([result]).filter((v) => v.operation.name === "exp");
    expect(exponentials).toHaveLength(1);
  });

  test("does not merge two inputs of one name and reports them", () => {
    expect(() => simplify([add(x, input("x", [2, 3]))])).toThrow(/two inputs are called x/);
  });

  test("folds constants", () => {
    const [result] = simplify([exp(add(constant([2], Float32Array.of(1, 2)), scalar(-1)))]);
    expect(isConstant(result)).toBe(true);
    expect(interpret([result], new Map())[0].data[1]).toBeCloseTo(Math.E, 6);
  });

  test.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
    "preserves %s and its derivatives",
    (_name, entry) => {
      const { inputs, feeds, outputs } = conformanceProblem(entry);
      const values = Object.values(outputs);
      const given = new Map(inputs.map((value, i) => [value, feeds[i]]));
      const before = interpret(values, given);
      const simplified = simplify(values);
      interpret(simplified, given).forEach(({ data }, i) => {
        data.forEach((element, k) => {
          expect(element).toBeCloseTo(before[i].data[k], 5);
        });
      });
      expect(topologicalOrder(simplified).length).toBeLessThanOrEqual(
        topologicalOrder(values).length,
      );
    },
  );
});

test("substitute exchanges a value wherever it is used and refuses another shape", () => {
  const [result] = substitute([add(exp(x), x)], new Map([[x, y]]));
  const feeds = new Map([[y, randomArray(6, 1)]]);
  expect(interpret([result], feeds)[0].data[0]).toBeCloseTo(
    Math.exp(feeds.get(y)![0]) + feeds.get(y)![0],
  );
  expect(() => substitute([x], new Map([[x, scalar(1)]]))).toThrow(/expected float32\[2,3\]/);
});

test("findCommon knows what two graphs compute alike, and nothing else", () => {
  const graph = (name: string) => {
    const x = input("x", [2, 3]);
    const w = input(name, [2, 3]);
    const product = multiply(x, w);
    return { x, w, product, logits: add(product, x) };
  };
  const [first, second] = [graph("w"), graph("w")];
  const alike = new Map([[second.x, first.x]]);
  const found = (others: Value) => findCommon([first.logits], [others], alike);
  expect(found(second.logits)).toEqual(new Set([second.x]));
  alike.set(second.w, first.w);
  expect(found(second.logits)).toEqual(new Set(Object.values(second)));
  // A sum that lacks a term, and what is made of it.
  const lacking = multiply(second.x, second.x);
  const common = found(add(second.product, lacking));
  expect(common).toEqual(new Set([second.x, second.w, second.product]));
  // Twice the same in the first graph is the same as once in the second.
  const twice = add(multiply(first.x, first.w), multiply(first.x, first.w));
  const once = add(second.product, second.product);
  expect(findCommon([twice], [once], alike)).toContain(once);
});

test("splitStages carries what does not vary, and the stages together give the same", () => {
  const w = input("w", [4, 3]);
  const direction = input("direction", [4, 3]);
  const output = tanh(linear(relu(x), w));
  const [tangent] = jvp([output], new Map([[w, direction]]));
  const stages = splitStages([tangent], [direction]);
  const feeds = new Map(
    [x, w, direction].map((value, i) => [value, randomArray(sizeOf(value.shape), i)]),
  );
  const carried = interpret(stages.carried, feeds);
  stages.carriedInputs.forEach((value, i) => {
    feeds.set(value, Float32Array.from(carried[i].data));
  });
  const [expected, actual] = [interpret([tangent], feeds), interpret(stages.outputs, feeds)];
  actual[0].data.forEach((element, k) => {
    expect(element).toBeCloseTo(expected[0].data[k], 6);
  });
  const second = new Set(topologicalOrder(stages.outputs));
  expect(second.has(output)).toBe(false);
});

test("verify names a node whose shape was altered", () => {
  const broken = { ...negate(x), shape: [3, 2] };
  expect(() => verify([broken])).toThrow(/negate \(node \d+\): expected float32\[2,3\]/);
});

test("cost counts multiply-accumulates, parameters and live memory", () => {
  const image = input("image", [1, 3, 8, 8]);
  const w1 = input("w1", [4, 3, 3, 3]);
  const w2 = input("w2", [10, 4]);
  const logits = linear(mean(relu(conv(image, w1, { padding: [1, 1, 1, 1] })), [2, 3]), w2);
  const { macs, parameters, peakBytes } = cost([logits], (value) => value !== image);
  expect(macs).toBe(4 * 3 * 9 * 64 + 40);
  expect(parameters).toBe(4 * 3 * 9 + 40);
  // Inputs, parameters, and the convolution's result beside relu's.
  expect(peakBytes).toBe(4 * (3 * 64 + 108 + 40 + 2 * 4 * 64));
});

test("a reshape keeps the memory of its input alive", () => {
  const x = input("x", [100]);
  const doubled = multiply(x, scalar(2));
  const viewed = reshape(doubled, [10, 10]);
  const large = multiply(x, x);
  // x, the doubled one in its new shape, the product, and their sum.
  const { peakBytes } = cost([add(reshape(large, [10, 10]), viewed)]);
  expect(peakBytes).toBe(4 * (4 * 100 + 1));
});

describe("errors name the operation and the shapes", () => {
  test.each<[string, () => unknown, RegExp]>([
    ["add", () => add(x, input("z", [4])), /^add: expected two shapes.*\[2,3\].*\[4\]/],
    ["linear", () => linear(x, y.inputs[0] ?? input("w", [4, 2])), /^linear: expected.*\[4,2\]/],
    ["conv", () => conv(input("i", [1, 3, 2, 2]), input("w", [4, 2, 3, 3])), /^conv: expected/],
    ["conv too small", () => conv(input("i", [1, 2, 2, 2]), input("w", [4, 2, 3, 3])), /at least/],
    ["reshape", () => reshape(x, [4]), /^reshape: expected as many elements/],
    ["divide", () => divide(integers([2], [5, 3]), integers([2], [2, 2])), /both float32.*int64/],
    ["softmax", () => softmax(input("s", [])), /^softmax: expected float32 with an axis/],
    ["logSoftmax", () => logSoftmax(input("s", [])), /^logSoftmax: expected float32 with an axis/],
  ])("%s", (_name, build, message) => {
    expect(build).toThrow(message);
  });
});

describe("splitSequence", () => {
  const a = input("a", [2, 2]);
  const b = exp(a);
  const c = tanh(b);
  const d = add(c, b);
  const e = multiply(d, a);
  const feeds = new Map([[a, Float64Array.of(0.1, -0.4, 0.9, 0.3)]]);
  const steps = [[c], [d], [e, b]];

  test.each([Number.POSITIVE_INFINITY, 20, 0])(
    "parts compute what the whole does, holding at most %d bytes",
    (mostBytes) => {
      let held = new Map<Value, Float64Array>();
      splitSequence(steps, mostBytes).forEach((part, i) => {
        expect(part.held.size * 16).toBeLessThanOrEqual(mostBytes);
        const own = new Map<Value, Float64Array>(feeds);
        for (const [value, placeholder] of part.held) own.set(placeholder, held.get(value)!);
        const results = interpret([...part.outputs, ...part.kept.values()], own);
        const expected = interpret(steps[i], feeds);
        expected.forEach(({ data }, k) => {
          expect([...results[k].data]).toEqual([...data]);
        });
        held = new Map(
          [...part.kept.keys()].map((value, k) => [value, results[steps[i].length + k].data]),
        );
      });
    },
  );

  test("what parameters alone make is not held, since they may change", () => {
    const w = input("w", [2]);
    const spread = broadcastTo(w, [2, 2]);
    const first = add(a, spread);
    const parts = splitSequence([[first], [multiply(exp(first), spread)]], undefined, [w]);
    expect([...parts[1].held.keys()]).toEqual([first]);
    const results = interpret(
      parts[1].outputs,
      new Map<Value, Float64Array>([
        [w, Float64Array.of(2, 3)],
        [parts[1].held.get(first)!, Float64Array.of(0, 0, 0, 0)],
      ]),
    );
    expect([...results[0].data]).toEqual([2, 3, 2, 3]);
  });

  test("nothing is computed twice", () => {
    const parts = splitSequence(steps);
    const operations = parts.map(({ outputs, kept }) =>
      topologicalOrder([...outputs, ...kept.values()])
        .filter(({ inputs }) => inputs.length > 0)
        .map(({ operation }) => operation.name),
    );
    expect(operations).toEqual([["exp", "tanh"], ["add"], ["multiply"]]);
  });
});
