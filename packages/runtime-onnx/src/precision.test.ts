import {
  add,
  concat,
  conv,
  encodeOnnx,
  float32Data,
  graphValues,
  inferenceOnnx,
  input,
  linear,
  matmul,
  maxPool,
  mean,
  multiply,
  type OnnxGraph,
  perChannel,
  quantize,
  relu,
  type StoredType,
  scalar,
  sizeOf,
  type Tensor,
  tensorsToCalibrate,
  toFloat16,
  type Value,
} from "@espalier/graph";
import { interpret } from "@espalier/graph/testing";
import { describe, expect, test } from "vitest";
import { openOnnxModel } from "./index.ts";

const noise = (length: number, seed: number) =>
  Float32Array.from({ length }, (_, i) => (Math.sin((i + 1) * (seed + 0.37)) * 43758.5453) % 1);

/** A graph for inference of `build`, whose parameters are noise of the given scale. */
function graphOf(
  shape: readonly number[],
  build: (x: Value, parameter: (name: string, shape: number[]) => Value) => Value,
  scale = 0.3,
): OnnxGraph {
  const parameters = new Map<string, Value>();
  const parameter = (name: string, of: number[]) => {
    const value = parameters.get(name) ?? input(name, of);
    parameters.set(name, value);
    return value;
  };
  return inferenceOnnx((batch) => {
    const y = build(input("x", [batch, ...shape]), parameter);
    const constants = new Map(
      [...parameters.values()].map((value, i) => [
        value,
        noise(sizeOf(value.shape), i + 1).map((n) => n * scale),
      ]),
    );
    return { outputs: { y }, constants };
  });
}

const convolutional = graphOf([3, 8, 8], (x, parameter) => {
  const layer = (name: string, of: Value, rows: number) =>
    add(
      conv(of, parameter(`${name}.weight`, [rows, of.shape[1], 3, 3]), { padding: [1, 1, 1, 1] }),
      perChannel(parameter(`${name}.bias`, [rows]), 4),
    );
  const first = relu(layer("first", x, 16));
  const pooled = maxPool(first, { kernel: [2, 2], strides: [2, 2], padding: [0, 0, 0, 0] });
  const joined = relu(concat([layer("a", pooled, 16), layer("b", pooled, 16)], 1));
  const sum = relu(add(layer("second", joined, 16), pooled));
  return add(linear(mean(sum, [2, 3]), parameter("fc.weight", [5, 16])), parameter("fc.bias", [5]));
});

const matrices = graphOf([6, 16], (x, parameter) => {
  const hidden = relu(matmul(x, parameter("a.weight", [16, 32])));
  return matmul(hidden, parameter("b.weight", [32, 4]));
});

const images = (batch: number, shape: readonly number[]): Tensor => ({
  dtype: "float32",
  shape: [batch, ...shape],
  data: noise(batch * sizeOf(shape), 77),
});

async function run(graph: OnnxGraph<StoredType>, x: Tensor): Promise<Float32Array> {
  const model = await openOnnxModel(encodeOnnx(graph), { threads: 1 });
  const { y } = await model.run({ x });
  await model.dispose();
  return float32Data(y);
}

/** The largest difference, as a share of the largest number. */
function difference(actual: Float32Array, expected: Float32Array): number {
  const most = (numbers: Float32Array) => numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return most(actual.map((n, i) => n - expected[i])) / most(expected);
}

/** The extremes of each tensor that has to be known, for the samples `x`. */
function rangesFor(graph: OnnxGraph, x: Tensor) {
  const values = graphValues(graph, "graph", { batch: x.shape[0] });
  const names = tensorsToCalibrate(graph);
  const results = interpret(
    names.map((name) => values.get(name)!),
    new Map([[values.get("x")!, x.data as Float32Array]]),
  );
  return new Map(
    names.map((name, i) => {
      const { data } = results[i];
      const [least, most] = data.reduce(([a, b], n) => [Math.min(a, n), Math.max(b, n)], [0, 0]);
      return [name, { least, most }];
    }),
  );
}

describe("float16", () => {
  test.each([
    ["convolutions", convolutional, [3, 8, 8]],
    ["matrix products", matrices, [6, 16]],
  ])("%s give nearly the same, from half the bytes", async (_name, graph, shape) => {
    const half = toFloat16(graph);
    const ports = [...half.inputs, ...half.outputs].map(({ dtype }) => dtype);
    expect(new Set(ports)).toEqual(new Set(["float32"]));
    const types = [...half.tensors.values()].filter(({ dtype }) => dtype === "float32");
    expect(types).toEqual([]);
    for (const batch of [1, 5]) {
      const x = images(batch, shape);
      const error = difference(await run(half, x), await run(graph, x));
      expect(error).toBeLessThan(5e-3);
      expect(error).toBeGreaterThan(0);
    }
  });

  test("numbers beyond its range become the largest; what adds up many stays float32", () => {
    const graph = graphOf([4, 2, 2], (x, parameter) =>
      mean(multiply(x, perChannel(parameter("factor", [4]), 4)), [2, 3]),
    );
    const { tensors, nodes } = toFloat16({
      ...graph,
      tensors: new Map(
        [...graph.tensors].map(([name, tensor]) => [
          name,
          tensor.dtype === "float32"
            ? { ...tensor, data: new Float32Array(tensor.data.length).fill(-1e9) }
            : tensor,
        ]),
      ),
    });
    const [halves] = [...tensors.values()].filter(({ dtype }) => dtype === "float16");
    // The sign, the largest exponent below infinity and a full fraction: −65504.
    expect([...(halves.data as Uint16Array)]).toEqual([0xfbff, 0xfbff, 0xfbff, 0xfbff]);
    expect(nodes.map(({ type }) => type)).toEqual([
      ...["Cast", "Mul", "Cast", "GlobalAveragePool", "Cast", "Reshape", "Cast"],
    ]);
  });
});

describe("8 bits", () => {
  test("convolutions have fixed scales, and their weights are bytes", async () => {
    const x = images(16, [3, 8, 8]);
    const ranges = rangesFor(convolutional, x);
    const bytes = quantize(convolutional, ranges);
    const expected = await run(convolutional, x);
    const error = difference(await run(bytes, x), expected);
    expect(error).toBeLessThan(0.05);
    expect(error).toBeGreaterThan(0);
    const wholes = [...bytes.tensors.values()].filter(({ data }) => data.length > 32);
    expect(wholes.map(({ dtype }) => dtype)).toEqual(wholes.map(() => "int8"));
    // Each sample is rounded alike, whatever is beside it.
    const alone = await run(bytes, { ...x, shape: [1, 3, 8, 8], data: x.data.slice(0, 192) });
    expect(difference(alone, (await run(bytes, x)).slice(0, 5))).toBeLessThan(1e-6);
  });

  test("weights use 7 bits, and the largest of each channel all of them", () => {
    const { tensors } = quantize(convolutional, rangesFor(convolutional, images(4, [3, 8, 8])));
    const { data } = tensors.get("second.weight.quantized")!;
    for (let row = 0; row < 16; row++) {
      const numbers = [...(data as Int8Array).subarray(row * 288, (row + 1) * 288)].map(Math.abs);
      expect(Math.max(...numbers)).toBe(63);
    }
  });

  test("matrix products find the ranges of their inputs when they run", async () => {
    expect(tensorsToCalibrate(matrices)).toEqual([]);
    const bytes = quantize(matrices, new Map());
    expect(bytes.nodes.map(({ type }) => type)).toContain("MatMulInteger");
    for (const factor of [1, 1000]) {
      const x = images(3, [6, 16]);
      const scaled = { ...x, data: (x.data as Float32Array).map((n) => n * factor) };
      expect(difference(await run(bytes, scaled), await run(matrices, scaled))).toBeLessThan(0.05);
    }
  });

  test("convolutions without ranges stay as they are; constants of zero are no trouble", async () => {
    const x = images(2, [3, 8, 8]);
    const untouched = quantize(convolutional, new Map());
    expect(untouched.nodes.filter(({ type }) => type === "Conv")).toHaveLength(4);
    const dead = graphOf(
      [3, 8, 8],
      (value, parameter) => add(conv(value, parameter("w", [2, 3, 1, 1])), scalar(1)),
      0,
    );
    const zeros = await run(quantize(dead, rangesFor(dead, x)), x);
    for (const zero of zeros) expect(zero).toBeCloseTo(1, 6);
  });
});
