/** @file One small graph per operation and way of using it: what every executor must get right. */
import { jvp, vjp } from "../autodiff.ts";
import { linear, matmul } from "../ops/contract.ts";
import { conv, convInputGradient, convWeightGradient } from "../ops/convolution.ts";
import {
  abs,
  add,
  cast,
  clip,
  divide,
  equal,
  erf,
  exp,
  gelu,
  greater,
  log,
  maximum,
  minimum,
  multiply,
  negate,
  reciprocal,
  relu,
  sigmoid,
  sign,
  sqrt,
  square,
  subtract,
  tanh,
  where,
} from "../ops/elementwise.ts";
import { constant, input, integers, scalar } from "../ops/leaf.ts";
import {
  addChannels,
  batchNorm,
  batchNormTraining,
  crossEntropy,
  layerNorm,
  logSoftmax,
  mean,
  oneHot,
  softmax,
} from "../ops/normalize.ts";
import { averagePool, maxPool } from "../ops/pool.ts";
import * as shapes from "../ops/shape.ts";
import { type Shape, sizeOf, type TensorData, type Value } from "../value.ts";
import { randomArray } from "./random.ts";

export interface ConformanceCase {
  readonly name: string;
  /** Float inputs, in the order in which `build` takes them. */
  readonly inputs: readonly {
    readonly shape: Shape;
    readonly low: number;
    readonly high: number;
  }[];
  build(...inputs: Value[]): Value;
}

function entry(
  name: string,
  inputs: readonly (Shape | { shape: Shape; low: number; high: number })[],
  build: (...inputs: Value[]) => Value,
): ConformanceCase {
  return {
    name,
    inputs: inputs.map((spec) => ("shape" in spec ? spec : { shape: spec, low: -1, high: 1 })),
    build,
  };
}

const positive = (...shape: number[]) => ({ shape, low: 0.5, high: 2 });
const image: Shape = [2, 4, 6, 5];

const unaryCases = Object.entries({
  ...{ negate, exp, tanh, sigmoid, erf, gelu, relu, abs, square },
}).map(([name, build]) => entry(name, [[3, 4]], build));
const positiveCases = Object.entries({ log, sqrt, reciprocal }).map(([name, build]) =>
  entry(name, [positive(3, 4)], build),
);
const binaryCases = Object.entries({ add, subtract, multiply, maximum, minimum }).flatMap(
  ([name, build]) => [
    entry(
      `${name}, equal shapes`,
      [
        [2, 3, 4],
        [2, 3, 4],
      ],
      build,
    ),
    entry(
      `${name}, broadcasting both`,
      [
        [2, 1, 4],
        [3, 1],
      ],
      build,
    ),
  ],
);

const convolutions: readonly [string, Shape, Shape, Parameters<typeof conv>[2]][] = [
  ["3x3, padding 1", image, [3, 4, 3, 3], { padding: [1, 1, 1, 1] }],
  ["3x3, no padding", image, [3, 4, 3, 3], {}],
  ["3x3, stride 2, padding 1", image, [3, 4, 3, 3], { strides: [2, 2], padding: [1, 1, 1, 1] }],
  ["1x1", image, [3, 4, 1, 1], {}],
  ["1x1, stride 2", image, [3, 4, 1, 1], { strides: [2, 2] }],
  ["3x3, groups 2", image, [6, 2, 3, 3], { padding: [1, 1, 1, 1], groups: 2 }],
  [
    "3x3, depthwise, stride 2",
    image,
    [4, 1, 3, 3],
    { strides: [2, 2], padding: [1, 1, 1, 1], groups: 4 },
  ],
  ["3x3, dilation 2, padding 2", image, [3, 4, 3, 3], { dilations: [2, 2], padding: [2, 2, 2, 2] }],
  [
    "3x3, stride 2, dilation 2, groups 2",
    [2, 4, 8, 7],
    [6, 2, 3, 3],
    { strides: [2, 2], dilations: [2, 2], padding: [1, 2, 1, 1], groups: 2 },
  ],
  ["2x3, asymmetric padding", image, [3, 4, 2, 3], { padding: [1, 0, 0, 2] }],
  ["5x5, padding 2, on an image of 2x1", [2, 3, 2, 1], [3, 3, 5, 5], { padding: [2, 2, 2, 2] }],
  ["5x5, padding 2", image, [3, 4, 5, 5], { padding: [2, 2, 2, 2] }],
  [
    "7x7, stride 2, padding 3",
    [2, 3, 9, 9],
    [2, 3, 7, 7],
    { strides: [2, 2], padding: [3, 3, 3, 3] },
  ],
  [
    "3x3, stride 2 on odd sizes",
    [2, 4, 7, 5],
    [3, 4, 3, 3],
    { strides: [2, 2], padding: [1, 1, 1, 1] },
  ],
  ["3x2, strides 3 and 2", [2, 4, 8, 7], [3, 4, 3, 2], { strides: [3, 2], padding: [2, 1, 0, 1] }],
  [
    "3x3, stride 2, groups 2",
    image,
    [6, 2, 3, 3],
    { strides: [2, 2], padding: [1, 1, 1, 1], groups: 2 },
  ],
  ["1x1, padding 1", image, [3, 4, 1, 1], { padding: [1, 1, 1, 1] }],
  ["16 channels, 3x3, padding 1", [3, 16, 8, 8], [32, 16, 3, 3], { padding: [1, 1, 1, 1] }],
];

export const conformanceCases: readonly ConformanceCase[] = [
  ...unaryCases,
  ...positiveCases,
  ...binaryCases,
  entry("divide, broadcasting", [[2, 3, 4], positive(3, 1)], divide),
  entry("sign", [[3, 4]], sign),
  entry(
    "where and greater",
    [
      [3, 4],
      [3, 4],
    ],
    (a, b) => where(greater(a, b), square(a), b),
  ),
  entry("cast of equal", [[3, 4]], (a) => cast(equal(a, a), "float32")),
  entry("clip", [[4, 5]], (x) => clip(x, -0.4, 0.5)),
  entry("clip, as ReLU6", [{ shape: [4, 5], low: -3, high: 9 }], (x) => clip(x, 0, 6)),
  entry("clip, of one side", [[4, 5]], (x) => clip(x, 0, Number.POSITIVE_INFINITY)),
  entry("reshape", [[2, 6]], (x) => shapes.reshape(x, [3, 4])),
  entry("broadcastTo", [[3, 1]], (x) => shapes.broadcastTo(x, [2, 3, 4])),
  entry("sum, all", [[2, 3, 4]], (x) => shapes.sum(x)),
  entry("sum, kept axes", [[2, 3, 4]], (x) => shapes.sum(x, [0, 2], true)),
  entry("mean over an image", [image], (x) => mean(x, [2, 3])),
  entry("sum and mean over an axis that is named twice", [[2, 3]], (x) =>
    add(shapes.sum(x, [1, -1]), mean(x, [-1, 1])),
  ),
  entry("sum and mean over no axes", [[2, 3]], (x) => multiply(shapes.sum(x, []), mean(x, []))),
  entry("mean over channels", [image], (x) => mean(x, [0, 2, 3], true)),
  entry("transpose", [[2, 3, 4]], (x) => shapes.transpose(x, [2, 0, 1])),
  entry("slice with steps", [[4, 7]], (x) => shapes.slice(shapes.slice(x, 1, 1, 6, 2), 0, 1, 3)),
  entry("pad", [[2, 3]], (x) => shapes.pad(x, [1, 0], [0, 2], [2, 1])),
  entry(
    "concat",
    [
      [2, 3],
      [2, 1],
    ],
    (a, b) => shapes.concat([a, b, a], 1),
  ),
  entry("gather", [[4, 3]], (x) => shapes.gather(x, integers([2, 2], [3, 0, 3, 1]), 0)),
  // Into more rows than a product with zeros and ones is used for.
  entry("gather from many", [[70, 2]], (x) =>
    shapes.gather(x, integers([5], [69, 0, 3, 69, 1]), 0),
  ),
  entry("gather on axis 1", [[2, 4, 3]], (x) => shapes.gather(x, [2, 2, 0], 1)),
  entry("gather, each once", [[2, 4, 3]], (x) => shapes.gather(x, [2, 0], 1)),
  entry("place", [[2, 3, 2]], (x) => shapes.place(x, [4, 0, 1], 5, 1)),
  entry("softmax", [[3, 5]], softmax),
  entry("logSoftmax", [[3, 5]], logSoftmax),
  entry("crossEntropy", [[3, 5]], (x) => crossEntropy(x, oneHot(integers([3], [4, 0, 2]), 5))),
  entry("layerNorm", [[2, 3, 6], positive(6), [6]], (x, scale, bias) =>
    layerNorm(x, scale, bias, 1e-5),
  ),
  entry("layerNorm of a vector", [[6], positive(6), [6]], (x, scale, bias) =>
    layerNorm(x, scale, bias, 1e-5),
  ),
  entry("addChannels", [image, [4]], addChannels),
  entry("batchNorm", [image, positive(4), [4], [4], positive(4)], (x, scale, bias, m, variance) =>
    batchNorm(x, { scale, bias, mean: m, variance }, 1e-5),
  ),
  entry(
    "batchNormTraining",
    [image, positive(4), [4]],
    (x, scale, bias) => batchNormTraining(x, { scale, bias }, 1e-5).result,
  ),
  entry("batchNormTraining, statistics", [image, positive(4), [4]], (x, scale, bias) => {
    const { mean: average, variance } = batchNormTraining(x, { scale, bias }, 1e-5);
    return shapes.concat([average, variance], 0);
  }),
  entry(
    "matmul",
    [
      [3, 4],
      [4, 5],
    ],
    matmul,
  ),
  entry(
    "matmul, broadcasting batches",
    [
      [2, 1, 3, 4],
      [3, 4, 2],
    ],
    matmul,
  ),
  entry(
    "linear",
    [
      [3, 4],
      [5, 4],
    ],
    linear,
  ),
  entry(
    "linear on sequences",
    [
      [2, 3, 4],
      [5, 4],
    ],
    linear,
  ),
  ...convolutions.flatMap(([name, x, w, attributes]) => {
    const y = conv(input("x", x), input("w", w), attributes);
    const common = y.attributes as Required<NonNullable<typeof attributes>>;
    const inputSize = [x[2], x[3]] as const;
    const kernel = [w[2], w[3]] as const;
    return [
      entry(`conv, ${name}`, [x, w], (a, b) => conv(a, b, attributes)),
      entry(`convInputGradient, ${name}`, [y.shape, w], (a, b) =>
        convInputGradient(a, b, { ...common, inputSize }),
      ),
      entry(`convWeightGradient, ${name}`, [x, y.shape], (a, b) =>
        convWeightGradient(a, b, { ...common, kernel }),
      ),
    ];
  }),
  entry("maxPool, 2x2", [image], (x) =>
    maxPool(x, { kernel: [2, 2], strides: [2, 2], padding: [0, 0, 0, 0] }),
  ),
  entry("maxPool, 3x3, overlapping, padded", [image], (x) =>
    maxPool(x, { kernel: [3, 3], strides: [2, 2], padding: [1, 1, 1, 1] }),
  ),
  entry("averagePool, 2x2, padded", [image], (x) =>
    averagePool(x, { kernel: [2, 2], strides: [2, 2], padding: [1, 1, 1, 1] }),
  ),
  entry("two layers with a residual", [image, [4, 4, 3, 3], [3, 4]], (x, w, v) => {
    const hidden = relu(conv(x, w, { padding: [1, 1, 1, 1] }));
    const pooled = mean(add(hidden, x), [2, 3]);
    return crossEntropy(linear(pooled, v), constant([2, 3], Float32Array.of(1, 0, 0, 0, 0.5, 0.5)));
  }),
  entry("positions", [[2, 3, 4]], (x) => multiply(x, cast(shapes.positions(x), "float32"))),
  entry(
    "attention",
    [
      [2, 3, 4],
      [4, 4],
      [4, 4],
      [4, 4],
    ],
    (x, q, k, v) => {
      const scores = matmul(linear(x, q), shapes.transpose(linear(x, k)));
      return matmul(softmax(multiply(scores, scalar(0.5))), linear(x, v));
    },
  ),
];

/** A graph of integers and booleans, which are fed: executors fold those that are constant. */
export interface DiscreteCase {
  readonly name: string;
  readonly feeds: Readonly<Record<string, TensorData>>;
  readonly outputs: Readonly<Record<string, Value>>;
}

const indices = input("indices", [2, 3], "int64");
const others = input("others", [2, 3], "int64");
const picked = input("picked", [3], "int64");
const mask = input("mask", [2, 3], "bool");
const marks = input("marks", [2, 3], "bool");
const numbers = input("numbers", [2, 3]);
const discreteFeeds = {
  indices: BigInt64Array.of(0n, 2n, 1n, 2n, 0n, 1n),
  // 2^24 + 1 is no float32.
  others: BigInt64Array.of(1n, 2n, 16_777_217n, -256n, 0n, 3n),
  picked: BigInt64Array.of(1n, 2n, 0n),
  mask: Uint8Array.of(1, 0, 1, 0, 0, 1),
  marks: Uint8Array.of(1, 1, 0, 0, 1, 1),
  numbers: Float32Array.of(0.5, -0.25, 1, 256, 0, -3),
};

/** The same rearrangements of every type, each under its name. */
const rearranged = (x: Value): Record<string, Value> => ({
  same: x,
  reshaped: shapes.reshape(x, [3, 2]),
  transposed: shapes.transpose(x),
  repeated: shapes.broadcastTo(shapes.reshape(x, [2, 3, 1]), [2, 3, 2]),
  sliced: shapes.slice(x, 1, 1, 3),
  stepped: shapes.slice(x, 1, 0, 3, 2),
  padded: shapes.pad(x, [0, 1], [1, 0], [1, 1]),
  joined: shapes.concat([x, x], 1),
  gathered: shapes.gather(x, picked, 1),
  placed: shapes.place(x, [3, 0, 2], 5, 1),
  counted: shapes.positions(x),
});

const discreteOutputs: Readonly<Record<string, Readonly<Record<string, Value>>>> = {
  "integers, rearranged": rearranged(others),
  "booleans, rearranged": rearranged(mask),
  "numbers, rearranged by integers": rearranged(numbers),
  "integers, computed": {
    sum: add(indices, picked),
    difference: subtract(indices, others),
    product: multiply(indices, others),
    larger: maximum(indices, others),
    smaller: minimum(others, picked),
    chosen: where(mask, indices, others),
  },
  comparisons: {
    greater: greater(indices, picked),
    equal: equal(indices, others),
    greaterNumber: greater(numbers, scalar(0)),
    equalBoolean: equal(mask, marks),
    chosen: where(marks, numbers, shapes.full(numbers.shape, -1)),
  },
  casts: {
    numberOfInteger: cast(indices, "float32"),
    numberOfBoolean: cast(mask, "float32"),
    integerOfNumber: cast(numbers, "int64"),
    integerOfBoolean: cast(mask, "int64"),
    booleanOfNumber: cast(numbers, "bool"),
    booleanOfInteger: cast(others, "bool"),
    chosen: where(cast(numbers, "bool"), indices, others),
  },
  oneHot: { rows: oneHot(indices, 3), scaled: multiply(oneHot(picked, 4), scalar(0.5)) },
  "gather by integers and its adjoint": gathered(),
};

function gathered(): Record<string, Value> {
  const rows = shapes.gather(numbers, indices, 1);
  const [adjoint] = vjp([rows], [square(rows)], [numbers]);
  return { rows, adjoint };
}

export const discreteCases: readonly DiscreteCase[] = Object.entries(discreteOutputs).map(
  ([name, outputs]) => ({ name, feeds: discreteFeeds, outputs }),
);

export interface ConformanceProblem {
  readonly inputs: readonly Value[];
  readonly feeds: readonly Float32Array[];
  /** The result, its first derivatives by both modes, and a second derivative. */
  readonly outputs: Readonly<Record<string, Value>>;
}

/** A case with random inputs, cotangents and tangents. */
export function conformanceProblem({ inputs: specs, build }: ConformanceCase): ConformanceProblem {
  const inputs = specs.map(({ shape }, i) => input(`x${i}`, shape));
  const feeds = specs.map(({ shape, low, high }, i) =>
    randomArray(sizeOf(shape), i + 1, low, high),
  );
  const random = (value: Value, seed: number) =>
    constant(value.shape, randomArray(sizeOf(value.shape), seed));
  const result = build(...inputs);
  const outputs: Record<string, Value> = { result };
  const cotangents = vjp([result], [random(result, 100)], inputs);
  const tangents = new Map(inputs.map((value, i) => [value, random(value, 200 + i)]));
  [outputs.tangent] = jvp([result], tangents);
  const seconds = jvp(cotangents, tangents);
  inputs.forEach((_, i) => {
    outputs[`cotangent${i}`] = cotangents[i];
    outputs[`second${i}`] = seconds[i];
  });
  return { inputs, feeds, outputs };
}
