import { EspalierError } from "@espalier/base";
import { describe, expect, test } from "vitest";
import { linear } from "../ops/contract.ts";
import { conv } from "../ops/convolution.ts";
import { add, multiply, relu } from "../ops/elementwise.ts";
import { input, scalar } from "../ops/leaf.ts";
import { batchNorm, mean, perChannel } from "../ops/normalize.ts";
import { broadcastTo, reshape, sum, transpose } from "../ops/shape.ts";
import { interpret, randomArray } from "../testing/index.ts";
import { sizeOf, type Value } from "../value.ts";
import { decodeOnnx } from "./decode.ts";
import { exportOnnx } from "./export.ts";
import { readOnnx } from "./read.ts";

const parameters = [
  input("conv.weight", [6, 3, 3, 3]),
  ...["weight", "bias", "running_mean", "running_var"].map((name) => input(`bn.${name}`, [6])),
  input("fc.weight", [5, 6]),
  input("fc.bias", [5]),
];
const constants = new Map<Value, Float32Array>(
  parameters.map((value, i) => [value, randomArray(sizeOf(value.shape), i, 0.5, 1)]),
);

function build(batch: number) {
  const [w, scale, bias, average, variance, v, b] = parameters;
  const x = input("x", [batch, 3, 7, 7]);
  const convolved = conv(x, w, { padding: [1, 1, 1, 1] });
  const hidden = batchNorm(convolved, { scale, bias, mean: average, variance }, 1e-5);
  const logits = add(linear(mean(relu(hidden), [2, 3]), v), b);
  return { outputs: { logits }, constants };
}

test("a model is exported with an open batch dimension and its properties", () => {
  const bytes = exportOnnx(build, { metadata: { license: "Apache-2.0" } });
  const { graph, metadata } = decodeOnnx(bytes, "model.onnx");
  expect(metadata).toEqual({ license: "Apache-2.0" });
  expect(graph.inputs).toEqual([{ name: "x", dtype: "float32", shape: ["batch", 3, 7, 7] }]);
  expect(graph.outputs).toEqual([{ name: "logits", dtype: "float32", shape: ["batch", 5] }]);
  expect(graph.nodes.map(({ type, outputs }) => `${outputs} = ${type}`)).toEqual([
    "conv = Conv",
    "Relu = Relu",
    "GlobalAveragePool = GlobalAveragePool",
    "Reshape = Reshape",
    "logits = Gemm",
  ]);
});

test.each([1, 4])("at batch %s the exported model computes the same", (batch) => {
  const { inputs, outputs } = readOnnx(exportOnnx(build), "model.onnx", { batch });
  const { logits } = build(batch).outputs;
  const data = randomArray(batch * 147, 1);
  const original = new Map<Value, Float32Array>(constants);
  const x = [...reachable(logits)].find(({ attributes }) => attributes.name === "x")!;
  const [expected] = interpret([logits], original.set(x, data));
  const [actual] = interpret([outputs.logits], new Map([[inputs.x, data]]));
  expect(actual.shape).toEqual(expected.shape);
  actual.data.forEach((element, i) => {
    expect(element).toBeCloseTo(expected.data[i], 5);
  });
});

function reachable(value: Value, seen = new Set<Value>()): Set<Value> {
  seen.add(value);
  for (const operand of value.inputs) if (!seen.has(operand)) reachable(operand, seen);
  return seen;
}

describe("refuses a batch size that is built in", () => {
  test.each<[string, RegExp, (x: Value, batch: number) => Value]>([
    ["as a shape", /node y \(Expand\)/, (x, batch) => broadcastTo(mean(x), [batch, 2])],
    ["as a number", /node y \(Mul\)/, (x, batch) => multiply(x, scalar(1 / batch))],
    ["in a reshape", /node y \(Reshape\)/, (x, batch) => reshape(transpose(x), [3, 2, batch])],
    ["in an output", /y differs/, (x) => transpose(x)],
  ])("%s", (_name, message, compute) => {
    const attempt = () =>
      exportOnnx((batch) => ({
        outputs: { y: compute(input("x", [batch, 6]), batch) },
        constants: new Map(),
      }));
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(/batches of 1009 and 1013: the size is built in/);
    try {
      attempt();
    } catch (error) {
      expect(EspalierError.isInstance(error, "invalid-graph")).toBe(true);
    }
  });

  test("but not sizes that only look like it", () => {
    const vector = input("v", [16]);
    const bytes = exportOnnx((batch) => ({
      outputs: { y: sum(add(input("x", [batch, 16, 2, 2]), perChannel(vector, 4)), [1, 2, 3]) },
      constants: new Map([[vector, randomArray(16, 1)]]),
    }));
    expect(decodeOnnx(bytes, "model.onnx").graph.nodes.map(({ type }) => type)).toEqual([
      "Add",
      "ReduceSum",
    ]);
  });
});
