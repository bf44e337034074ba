import { describe, expect, test } from "vitest";
import { linear, matmul } from "../ops/contract.ts";
import { conv } from "../ops/convolution.ts";
import { add, multiply, relu, sqrt, square, subtract } from "../ops/elementwise.ts";
import { constant, input, isInput, scalar } from "../ops/leaf.ts";
import { batchNorm, mean, perChannel } from "../ops/normalize.ts";
import { concat, place, transpose } from "../ops/shape.ts";
import { simplify } from "../passes.ts";
import { conformanceCases, interpret, randomArray } from "../testing/index.ts";
import { type Shape, sizeOf, topologicalOrder, type Value } from "../value.ts";
import type { OnnxGraph } from "./builder.ts";
import { encodeOnnx } from "./encode.ts";
import { lowerToOnnx } from "./lower.ts";
import { readOnnx } from "./read.ts";
import { tidyForInference } from "./tidy.ts";

const x = input("x", [2, 4, 6, 5]);

/** `outputs` as an inference model: all inputs but `x` are parameters, random and positive. */
function lower(outputs: Record<string, Value>): OnnxGraph {
  const parameters = topologicalOrder(Object.values(outputs)).filter(
    (value) => isInput(value) && value.attributes.name !== "x",
  );
  const constants = new Map(
    parameters.map((value, i) => [value, randomArray(sizeOf(value.shape), i + 1, 0.5, 1.5)]),
  );
  return lowerToOnnx(outputs, { constants });
}

/** The results of `graph` for a random x of at least `low`, in float64. */
function run(graph: OnnxGraph, low: number): Float64Array[] {
  const { inputs, outputs } = readOnnx(encodeOnnx(graph), "model.onnx");
  const feeds = new Map(
    Object.values(inputs).map((value) => [value, randomArray(sizeOf(value.shape), 99, low)]),
  );
  return interpret(Object.values(outputs), feeds).map(({ data }) => data);
}

/** The tidied graph, having checked that it computes the same. */
function tidy(outputs: Record<string, Value>, low = -1): OnnxGraph {
  const graph = lower(outputs);
  const tidied = tidyForInference(graph);
  const expected = run(graph, low);
  run(tidied, low).forEach((data, i) => {
    const scale = expected[i].reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3);
    data.forEach((element, k) => {
      expect(Math.abs(element - expected[i][k]) / scale).toBeLessThan(1e-6);
    });
  });
  return tidied;
}

const typesOf = ({ nodes }: OnnxGraph) => nodes.map(({ type }) => type).join(" ");
const linesOf = ({ nodes }: OnnxGraph) =>
  nodes.map(({ type, inputs, outputs }) => `${outputs} = ${type}(${inputs.join(", ")})`);

const convolve = (name: string, rows: number, kernel = 3, from: Value = x, groups = 1) =>
  conv(from, input(`${name}.weight`, [rows, from.shape[1] / groups, kernel, kernel]), {
    padding: kernel === 3 ? [1, 1, 1, 1] : [0, 0, 0, 0],
    groups,
  });
const vector = (name: string, size: number) => input(name, [size]);
const normalize = (name: string, value: Value) => {
  const of = (suffix: string) => vector(`${name}.${suffix}`, value.shape[1]);
  const statistics = { mean: of("running_mean"), variance: of("running_var") };
  return batchNorm(value, { scale: of("weight"), bias: of("bias"), ...statistics }, 1e-5);
};

describe("channels of convolutions", () => {
  const implanted = (rows: number) =>
    concat([convolve("conv", rows), convolve("conv.implant", 3, 1)], 1);

  test("that are joined become rows of one", () => {
    const { nodes, tensors } = tidy({ y: relu(normalize("bn", implanted(2))) });
    expect(nodes.map(({ type }) => type)).toEqual(["Conv", "Relu"]);
    const { shape, data } = tensors.get("conv.weight")!;
    expect(shape).toEqual([5, 4, 3, 3]);
    // A 1×1 kernel is the middle of a 3×3 one.
    const last = [...(data as Float32Array).subarray(-9)];
    expect(last.map((weight) => weight !== 0)).toEqual(last.map((_, i) => i === 4));
  });

  test("that are whole blocks stay apart, unless they are moved", () => {
    const blocks = concat([convolve("conv", 16), convolve("conv.implant", 16, 1)], 1);
    expect(typesOf(tidy({ y: relu(normalize("bn", blocks)) }))).toBe("Conv Conv Concat Relu");
    const order = [...Array(32).keys()].reverse();
    const moved = place(normalize("bn", blocks), order, 40, 1);
    expect(typesOf(tidy({ y: relu(moved) }))).toBe("Conv Relu");
  });

  test("that are moved or filled up become rows in other places, and zeros", () => {
    for (const positions of [
      [3, 0, 5, 1],
      [2, 3, 4, 5],
    ]) {
      const placed = place(normalize("bn", convolve("conv", 4)), positions, 7, 1);
      const { nodes, tensors } = tidy({ y: add(placed, convolve("other", 7)) });
      expect(nodes.map(({ type }) => type)).toEqual(["Conv", "Conv", "Add"]);
      expect([...tensors.values()].map(({ shape }) => shape[0])).toEqual([7, 7, 7]);
    }
  });

  test("stay as they are where others read them, or kernels do not fit", () => {
    const shared = normalize("bn", convolve("conv", 4));
    expect(typesOf(tidy({ y: place(shared, [1, 0, 3, 2], 5, 1), z: relu(shared) }))).toContain(
      "Gather",
    );
    const strided = (name: string, strides: [number, number]) =>
      normalize(`${name}.bn`, conv(x, input(`${name}.weight`, [3, 4, 1, 1]), { strides }));
    const shifted = normalize(
      "b.bn",
      conv(x, input("b.weight", [3, 4, 3, 3]), { strides: [2, 2], padding: [0, 0, 2, 2] }),
    );
    expect(typesOf(tidy({ y: concat([strided("a", [2, 2]), shifted], 1) }))).toBe("Conv");
    const unpadded = normalize(
      "c.bn",
      conv(x, input("c.weight", [3, 4, 3, 3]), {
        padding: [1, 1, 1, 1],
        dilations: [1, 1],
        strides: [1, 1],
      }),
    );
    const wide = normalize(
      "d.bn",
      conv(x, input("d.weight", [3, 4, 1, 3]), { padding: [0, 1, 0, 1] }),
    );
    expect(typesOf(tidy({ y: concat([wide, unpadded], 1) }))).toBe("Conv");
    const dilated = normalize(
      "e.bn",
      conv(x, input("e.weight", [3, 4, 3, 3]), { padding: [2, 2, 2, 2], dilations: [2, 2] }),
    );
    expect(typesOf(tidy({ y: concat([dilated, unpadded], 1) }))).toBe("Conv Conv Concat");
    const grouped = [convolve("a", 4, 3, x, 2), convolve("b", 4, 3, x, 2)];
    const both = concat(
      grouped.map((part, i) => normalize(`bn${i}`, part)),
      1,
    );
    expect(typesOf(tidy({ y: both }))).toBe("Conv Conv Concat");
  });
});

test("an activation of an activation is one", () => {
  expect(linesOf(tidyForInference(lowerToOnnx({ y: simplify([relu(relu(x))])[0] })))).toEqual([
    "y = Relu(x)",
  ]);
});

describe("normalisation", () => {
  test("becomes part of the convolution before it", () => {
    expect(linesOf(tidy({ y: normalize("bn", convolve("conv", 6)) }))).toEqual([
      "y = Conv(x, conv.weight, conv.bias)",
    ]);
  });

  test("is rounded once", () => {
    const { tensors } = lower({ y: normalize("bn", convolve("conv", 6)) });
    const of = (name: string) => tensors.get(name)!.data as Float32Array;
    const folded = tidyForInference(lower({ y: normalize("bn", convolve("conv", 6)) })).tensors;
    const epsilon = Math.fround(1e-5);
    const factor = (k: number) => of("bn.weight")[k] / Math.sqrt(of("bn.running_var")[k] + epsilon);
    expect(folded.get("conv.weight")!.data).toEqual(
      of("conv.weight").map((w, i) => w * factor(Math.floor(i / 36))),
    );
    expect(folded.get("conv.bias")!.data).toEqual(
      of("bn.bias").map((b, k) => b - of("bn.running_mean")[k] * factor(k)),
    );
  });

  test("takes a bias and groups into account", () => {
    const biased = add(convolve("conv", 6, 3, x, 2), perChannel(vector("conv.bias", 6), 4));
    expect(linesOf(tidy({ y: normalize("bn", biased) }))).toEqual([
      "y = Conv(x, conv.weight, conv.bias)",
    ]);
  });

  test("is divided among the convolutions whose channels it normalises", () => {
    // Whole blocks of channels, which are not made one convolution.
    const parts = [convolve("conv", 16), convolve("conv.implant", 32, 1), convolve("other", 16)];
    const joined = concat([concat(parts.slice(0, 2), 1), parts[2]], 1);
    expect(linesOf(tidy({ y: relu(normalize("bn", joined)) }))).toEqual([
      "conv = Conv(x, conv.weight, conv.bias)",
      "conv.implant = Conv(x, conv.implant.weight, conv.implant.bias)",
      "other = Conv(x, other.weight, other.bias)",
      "Concat = Concat(conv, conv.implant)",
      "Concat_1 = Concat(Concat, other)",
      "y = Relu(Concat_1)",
    ]);
  });

  test("stays where a convolution has other users, or something else comes before it", () => {
    const shared = convolve("conv", 6);
    expect(typesOf(tidy({ y: add(normalize("bn", shared), shared) }))).toBe(
      "Conv BatchNormalization Add",
    );
    expect(typesOf(tidy({ y: normalize("bn", shared), z: shared }))).toBe(
      "Conv BatchNormalization",
    );
    const half = concat([shared, relu(convolve("other", 6))], 1);
    expect(typesOf(tidy({ y: normalize("bn", half) }))).toBe(
      "Conv Conv Relu Concat BatchNormalization",
    );
    const twice = concat([shared, shared], 1);
    expect(typesOf(tidy({ y: normalize("bn", twice) }))).toBe("Conv Concat BatchNormalization");
    expect(typesOf(tidy({ y: normalize("bn", x) }))).toBe("BatchNormalization");
  });

  test("of two layers that share a weight is kept apart", () => {
    const w = input("conv.weight", [4, 4, 3, 3]);
    const layer = (from: Value) => conv(from, w, { padding: [1, 1, 1, 1] });
    const y = normalize("bn2", layer(relu(normalize("bn1", layer(x)))));
    expect(linesOf(tidy({ y }))).toEqual([
      "conv = Conv(x, conv.weight, conv.bias)",
      "Relu = Relu(conv)",
      "y = Conv(Relu, conv.weight_1, conv.bias_1)",
    ]);
  });
});

describe("sums", () => {
  test.each<[string, Shape]>([
    ["[1, K, 1, 1]", [1, 5, 1, 1]],
    ["[K, 1, 1]", [5, 1, 1]],
    ["a number", []],
  ])("with %s become a bias", (_name, shape) => {
    const term = input("term", shape);
    const expected = ["y = Conv(x, conv.weight, term)"];
    expect(linesOf(tidy({ y: add(convolve("conv", 5), term) }))).toEqual(expected);
    expect(linesOf(tidy({ y: add(term, convolve("conv", 5)) }))).toEqual(expected);
    expect(typesOf(tidy({ y: subtract(convolve("conv", 5), term) }))).toBe("Conv");
    expect(typesOf(tidy({ y: subtract(term, convolve("conv", 5)) }))).toBe("Conv Sub");
  });

  test.each<[string, Shape]>([
    ["one number per column", [5]],
    ["one per row", [6, 1]],
    ["one per element", [5, 6, 5]],
    ["one per sample", [2, 5, 1, 1]],
    ["more axes", [1, 1, 5, 1, 1]],
  ])("of %s stay", (_name, shape) => {
    expect(typesOf(tidy({ y: add(convolve("conv", 5), input("term", shape)) }))).toBe("Conv Add");
  });

  test("become the third operand of a linear layer", () => {
    const pooled = mean(x, [2, 3]);
    const layer = linear(pooled, input("fc.weight", [3, 4]));
    expect(linesOf(tidy({ y: add(layer, vector("fc.bias", 3)) })).at(-1)).toBe(
      "y = Gemm(Reshape, fc.weight, fc.bias)",
    );
    expect(typesOf(tidy({ y: add(layer, input("b", [2, 3])) }))).toMatch(/Gemm Add$/);
  });
});

test("what no input changes is computed once, in float64, and rounded once", () => {
  const [w, s] = [input("w", [5, 4]), input("s", [5, 1])];
  const scaled = transpose(multiply(w, sqrt(add(s, scalar(0.1)))));
  const graph = lower({ y: matmul(mean(x, [2, 3]), scaled) });
  const tidied = tidy({ y: matmul(mean(x, [2, 3]), scaled) });
  expect(typesOf(tidied)).toBe("GlobalAveragePool Reshape MatMul");
  const [wData, sData] = ["w", "s"].map((name) => graph.tensors.get(name)!.data as Float32Array);
  const expected = Float32Array.from({ length: 20 }, (_, i) => {
    const row = i % 5;
    return wData[row * 4 + Math.floor(i / 5)] * Math.sqrt(sData[row] + Math.fround(0.1));
  });
  expect(tidied.tensors.get("w")).toEqual({ dtype: "float32", shape: [4, 5], data: expected });
});

test("a parameter used as it is keeps its name", () => {
  const w = input("fc.weight", [4, 4]);
  const both = add(matmul(mean(x, [2, 3]), transpose(w)), matmul(mean(x, [2, 3]), w));
  const { tensors } = tidy({ y: both });
  expect([...tensors.keys()].filter((name) => name.startsWith("fc"))).toEqual([
    "fc.weight_1",
    "fc.weight",
  ]);
  expect(tensors.get("fc.weight")).toEqual(lower({ y: both }).tensors.get("fc.weight"));
});

test("outputs that are inputs, parameters or the same tensor keep their names", () => {
  const p = input("p", [2]);
  const y = relu(x);
  const tidied = tidy({ same: x, parameter: p, y, again: y, z: square(y) });
  expect(linesOf(tidied)).toEqual([
    "y = Relu(x)",
    "z = Mul(y, y)",
    "same = Identity(x)",
    "parameter = Identity(p)",
    "again = Identity(y)",
  ]);
});

test("names of inputs and outputs are not given to anything else", () => {
  const named = input("Relu", [2]);
  const graph = lowerToOnnx({
    Relu_0: add(relu(relu(named)), constant([2], Float32Array.of(1, 2))),
  });
  expect(graph.nodes.map(({ outputs }) => outputs[0])).toEqual(["Relu_1", "Relu_2", "Relu_0"]);
  expect(linesOf(tidyForInference(graph))).toEqual([
    "Relu_1 = Relu(Relu)",
    "Relu_2 = Relu(Relu_1)",
    "Relu_0 = Add(Relu_2, constant_3)",
  ]);
  expect(() => lowerToOnnx({ Relu: relu(named) })).toThrow(/called Relu/);
});

test.each(conformanceCases.map((entry) => [entry.name, entry] as const))(
  "%s stays the same when all inputs but the first are constants",
  (_name, { inputs, build }) => {
    const values = inputs.map(({ shape }, i) => input(i === 0 ? "x" : `p${i}`, shape));
    tidy({ y: build(...values) }, inputs[0].low);
  },
);
