/** @file Means, softmax and the normalisations: fused where that is faster or more accurate. */
import {
  apply,
  expectInputs,
  normalizeAxes,
  type Operation,
  sameShape,
  sizeOf,
  stridesOf,
  type Value,
} from "../value.ts";
import { matmul } from "./contract.ts";
import {
  add,
  constantElement,
  multiply,
  reciprocal,
  sqrt,
  square,
  subtract,
} from "./elementwise.ts";
import { forEachOffset } from "./indexing.ts";
import { isInput, scalar } from "./leaf.ts";
import { full, reshape, sum, sumOperation } from "./shape.ts";

// --- mean ---

interface MeanAttributes {
  readonly axes: readonly number[];
  readonly keepDimensions: boolean;
}

const meanOperation: Operation<MeanAttributes> = {
  name: "mean",
  semantics: "average over axes",
  infer: (inputs, attributes) => sumOperation.infer(inputs, attributes),
  evaluate: (inputs, value) => {
    const count = sizeOf(inputs[0].shape) / sizeOf(value.shape);
    return sumOperation.evaluate(inputs, value).map((total) => total / count);
  },
  decompose: ({ inputs: [x], attributes: { axes, keepDimensions }, shape }) =>
    multiply(sum(x, axes, keepDimensions), scalar(sizeOf(shape) / sizeOf(x.shape))),
  onnx: (builder, [x], value) => {
    const { axes, keepDimensions } = value.attributes;
    const { shape } = value.inputs[0];
    if (shape.length === 4 && axes.join() === "2,3") {
      // The runtime keeps GlobalAveragePool in its blocked convolution layout.
      const pooled = builder.node("GlobalAveragePool", [x]);
      return keepDimensions
        ? pooled
        : builder.reshape(pooled, [...shape.slice(0, 2), 1, 1], value.shape);
    }
    return builder.node("ReduceMean", [x, builder.ints(axes)], {
      keepdims: keepDimensions ? 1 : 0,
    });
  },
  pytorch: ([x], { attributes: { axes, keepDimensions } }) =>
    `${x}.mean(dim=[${axes.join(", ")}]${keepDimensions ? ", keepdim=True" : ""})`,
  couple: (value, [x], coupling) => {
    // An average over channels changes when one is removed.
    for (const axis of value.attributes.axes) coupling.fix(x[axis]);
    return sumOperation.couple!(value, [x], coupling);
  },
};

/** Average over `axes` (default: all). */
export function mean(x: Value, axes?: readonly number[], keepDimensions = false): Value {
  const normalized = normalizeAxes(axes, x.shape.length, "mean");
  // To ReduceMean, no axes are all.
  if (normalized.length === 0) return x;
  return apply(meanOperation, [x], { axes: normalized, keepDimensions });
}

// --- softmax and its logarithm ---

/** Calls `visit` with the offsets of each line of `shape` along its last axis. */
function forEachLine(shape: readonly number[], visit: (start: number, end: number) => void): void {
  const length = shape[shape.length - 1];
  for (let start = 0; start < sizeOf(shape); start += length) visit(start, start + length);
}

function inferLines(operation: string, x: Value) {
  expectInputs(x.shape.length > 0 && x.dtype === "float32", operation, "float32 with an axis", [x]);
  return { shape: x.shape, dtype: x.dtype };
}

const softmaxOperation: Operation<Record<string, never>> = {
  name: "softmax",
  semantics: "e^x / Σ e^x along the last axis",
  infer: ([x]) => inferLines("softmax", x),
  evaluate: ([x]) => {
    const result = logSoftmaxReference(x.data, x.shape);
    return result.map(Math.exp);
  },
  vjp: (value, cotangent) => [softmaxDerivative(value, cotangent)],
  // The Jacobian diag(y) - y yᵀ is symmetric.
  jvp: (value, [tangent]) => tangent && softmaxDerivative(value, tangent),
  onnx: (builder, inputs) => builder.node("Softmax", inputs, { axis: -1 }),
  pytorch: ([x]) => `F.softmax(${x}, dim=-1)`,
  couple: (_value, [x], coupling) => {
    // Each line is shared out among all its elements.
    coupling.fix(x[x.length - 1]);
    return [...x.slice(0, -1), undefined];
  },
};

function softmaxDerivative(y: Value, direction: Value): Value {
  return multiply(y, subtract(direction, sum(multiply(y, direction), [-1], true)));
}

function logSoftmaxReference(data: Float64Array, shape: readonly number[]): Float64Array {
  const result = new Float64Array(data.length);
  forEachLine(shape, (start, end) => {
    const line = data.subarray(start, end);
    const largest = line.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = line.reduce((a, b) => a + Math.exp(b - largest), 0);
    line.forEach((x, i) => {
      result[start + i] = x - largest - Math.log(total);
    });
  });
  return result;
}

/** Softmax along the last axis. */
export function softmax(x: Value): Value {
  return apply(softmaxOperation, [x], {});
}

const logSoftmaxOperation: Operation<Record<string, never>> = {
  name: "logSoftmax",
  semantics: "log of softmax along the last axis, without overflow",
  infer: ([x]) => inferLines("logSoftmax", x),
  evaluate: ([x]) => logSoftmaxReference(x.data, x.shape),
  vjp: (value, cotangent) => [
    subtract(cotangent, multiply(softmax(value.inputs[0]), sum(cotangent, [-1], true))),
  ],
  jvp: (value, [tangent]) =>
    tangent && subtract(tangent, sum(multiply(softmax(value.inputs[0]), tangent), [-1], true)),
  onnx: (builder, inputs) => builder.node("LogSoftmax", inputs, { axis: -1 }),
  pytorch: ([x]) => `F.log_softmax(${x}, dim=-1)`,
};

/** Logarithm of softmax along the last axis. */
export function logSoftmax(x: Value): Value {
  return apply(logSoftmaxOperation, [x], {});
}

// --- layer normalisation ---

const layerNormOperation: Operation<{ epsilon: number }> = {
  name: "layerNorm",
  semantics: "(x - mean) / sqrt(variance + epsilon) · scale + bias along the last axis",
  infer: ([x, scale, bias]) => {
    const last = x.shape.slice(-1);
    expectInputs(
      sameShape(scale.shape, last) && sameShape(bias.shape, last),
      "layerNorm",
      "x, and scale and bias of its last axis",
      [x, scale, bias],
    );
    return { shape: x.shape, dtype: x.dtype };
  },
  evaluate: ([x, scale, bias], { attributes: { epsilon } }) => {
    const result = new Float64Array(x.data.length);
    forEachLine(x.shape, (start, end) => {
      const line = x.data.subarray(start, end);
      const average = line.reduce((a, b) => a + b, 0) / line.length;
      const variance = line.reduce((a, b) => a + (b - average) ** 2, 0) / line.length;
      const factor = 1 / Math.sqrt(variance + epsilon);
      line.forEach((element, i) => {
        result[start + i] = (element - average) * factor * scale.data[i] + bias.data[i];
      });
    });
    return result;
  },
  vjp: ({ inputs: [x, scale], attributes: { epsilon } }, cotangent) => {
    const width = scale.shape[0];
    const rows = sizeOf(x.shape) / width;
    const centered = subtract(x, mean(x, [-1], true));
    const variance = mean(square(centered), [-1], true);
    const inverse = reciprocal(sqrt(add(variance, scalar(epsilon))));
    const product = multiply(cotangent, centered);
    // With g = cotangent · scale: dx = inverse · (g - mean(g)) - inverse³ · mean(g · centered) · centered.
    // Sums along and across rows are products with the vectors that weight them: one pass each.
    const along = (value: Value) => matmul(value, reshape(scale, [width, 1]));
    const share = multiply(inverse, scalar(-1 / width));
    const slope = multiply(multiply(share, square(inverse)), along(product));
    const shift = multiply(share, along(cotangent));
    const across = matmul(reshape(inverse, [1, rows]), reshape(product, [rows, width]));
    return [
      add(multiply(multiply(cotangent, scale), inverse), add(multiply(centered, slope), shift)),
      reshape(across, [width]),
      sum(cotangent, [...x.shape.keys()].slice(0, -1)),
    ];
  },
  decompose: ({ inputs: [x, scale, bias], attributes: { epsilon } }) => {
    const centered = subtract(x, mean(x, [-1], true));
    const variance = mean(square(centered), [-1], true);
    const normalized = multiply(centered, reciprocal(sqrt(add(variance, scalar(epsilon)))));
    return add(multiply(normalized, scale), bias);
  },
  onnx: (builder, inputs, { attributes: { epsilon } }) =>
    builder.node("LayerNormalization", inputs, { axis: -1, epsilon }),
  pytorch: ([x, scale, bias], { attributes: { epsilon } }) =>
    `F.layer_norm(${x}, ${x}.shape[-1:], ${scale}, ${bias}, eps=${epsilon})`,
};

/** Layer normalisation of the last axis. `scale` and `bias`: one number for each of its elements. */
export function layerNorm(x: Value, scale: Value, bias: Value, epsilon: number): Value {
  // Its derivatives are products of matrices.
  const rows = x.shape.length === 1 ? reshape(x, [1, ...x.shape]) : x;
  return reshape(apply(layerNormOperation, [rows, scale, bias], { epsilon }), x.shape);
}

// --- batch normalisation; channels are axis 1 ---

/** A per-channel vector [C] as a shape that broadcasts against [N, C, …]. */
export function perChannel(vector: Value, rank: number): Value {
  return reshape(vector, perChannelShape(vector.shape[0], rank));
}

const perChannelShape = (channels: number, rank: number) => [
  channels,
  ...new Array<number>(rank - 2).fill(1),
];

function checkChannels(name: string, [x, ...vectors]: readonly Value[]) {
  const channels = x.shape.slice(1, 2);
  expectInputs(
    x.shape.length >= 2 && vectors.every((vector) => sameShape(vector.shape, channels)),
    name,
    "x of shape [N, C, …] and vectors of C numbers",
    [x, ...vectors],
  );
  return { shape: x.shape, dtype: x.dtype };
}

const coupleChannels: NonNullable<Operation["couple"]> = (_value, [x, ...vectors], coupling) =>
  x.map((axis, i) =>
    i === 1 ? vectors.reduce((joined, [vector]) => coupling.unite(joined, vector), axis) : axis,
  );

const addChannelsOperation: Operation<Record<string, never>> = {
  name: "addChannels",
  semantics: "x[n,c,…] + bias[c]",
  infer: (inputs) => checkChannels("addChannels", inputs),
  evaluate: ([x, bias]) => {
    const [, channelStride] = stridesOf(x.shape);
    const channels = x.shape[1];
    return x.data.map(
      (element, i) => element + bias.data[Math.floor(i / channelStride) % channels],
    );
  },
  vjp: ({ inputs: [x] }, cotangent) => [cotangent, sum(cotangent, batchAxes(x.shape.length))],
  jvp: ({ shape }, [xTangent, biasTangent]) =>
    biasTangent ? addChannels(xTangent ?? full(shape, 0), biasTangent) : xTangent,
  onnx: (builder, [x, bias], { inputs: [{ shape }, vector] }) =>
    builder.node("Add", [
      x,
      builder.reshape(bias, vector.shape, perChannelShape(vector.shape[0], shape.length)),
    ]),
  pytorch: ([x, bias], { shape }) =>
    `${x} + ${bias}.reshape([${perChannelShape(-1, shape.length).join(", ")}])`,
  simplify: ({ inputs: [x, bias] }) => (constantElement(bias) === 0 ? x : undefined),
  affine: (_value, input) => input === 0,
  rowAxis: () => 1,
  sampleNorms: ({ inputs: [x] }, cotangent, input) => {
    expectInputs(input === 1, "addChannels", "the bias as the parameter of per-sample gradients", [
      x,
    ]);
    return square(sum(cotangent, batchAxes(x.shape.length).slice(1)));
  },
  couple: coupleChannels,
};

/** A bias [C] for the channels of `x` [N, C, …]. */
export function addChannels(x: Value, bias: Value): Value {
  return apply(addChannelsOperation, [x, bias], {});
}

const batchNormOperation: Operation<{ epsilon: number }> = {
  name: "batchNorm",
  semantics: "(x - mean) / sqrt(variance + epsilon) · scale + bias per channel, all given",
  infer: (inputs) => checkChannels("batchNorm", inputs),
  evaluate: ([x, scale, bias, average, variance], { attributes: { epsilon } }) => {
    const [, channelStride] = stridesOf(x.shape);
    const channels = x.shape[1];
    return x.data.map((element, i) => {
      const c = Math.floor(i / channelStride) % channels;
      const factor = scale.data[c] / Math.sqrt(variance.data[c] + epsilon);
      return (element - average.data[c]) * factor + bias.data[c];
    });
  },
  decompose: ({ inputs: [x, scale, bias, average, variance], attributes: { epsilon } }) => {
    const factor = multiply(scale, reciprocal(sqrt(add(variance, scalar(epsilon)))));
    const shift = subtract(bias, multiply(average, factor));
    const rank = x.shape.length;
    return add(multiply(x, perChannel(factor, rank)), perChannel(shift, rank));
  },
  onnx: (builder, inputs, { attributes: { epsilon } }) =>
    builder.node("BatchNormalization", inputs, { epsilon }),
  pytorch: ([x, scale, bias, average, variance], value) => {
    // Those that are stored are of the batches that the network was trained on.
    const training = value.inputs.slice(3).every(isInput) ? "self.training" : "False";
    const statistics = `${average}, ${variance}, ${scale}, ${bias}`;
    return `F.batch_norm(${x}, ${statistics}, ${training}, eps=${value.attributes.epsilon})`;
  },
  affine: (_value, input) => input === 0,
  couple: coupleChannels,
};

/** Batch normalisation with given statistics (evaluation mode): an affine map per channel. */
export function batchNorm(
  x: Value,
  parameters: { scale: Value; bias: Value; mean: Value; variance: Value },
  epsilon: number,
): Value {
  const { scale, bias, mean: average, variance } = parameters;
  return apply(batchNormOperation, [x, scale, bias, average, variance], { epsilon });
}

const batchNormTrainingOperation: Operation<{ epsilon: number }> = {
  name: "batchNormTraining",
  semantics: "batchNorm with the mean and variance of the batch itself; derivatives are total",
  infer: (inputs) => checkChannels("batchNormTraining", inputs),
  evaluate: (inputs, value) => batchNormOperation.evaluate(inputs, value),
  vjp: ({ inputs: [x, scale, , average, variance], attributes: { epsilon } }, cotangent) => {
    const rank = x.shape.length;
    const axes = batchAxes(rank);
    const count = sizeOf(x.shape) / x.shape[1];
    const inverse = reciprocal(sqrt(add(variance, scalar(epsilon))));
    const biasCotangent = sum(cotangent, axes);
    // Σ cotangent · x̂, with x̂ = (x - mean) · inverse
    const scaleCotangent = multiply(
      subtract(sum(multiply(cotangent, x), axes), multiply(biasCotangent, average)),
      inverse,
    );
    // dx = scale · inverse · (dy - Σdy/n - x̂ Σ(dy x̂)/n), gathered as a · dy + b · x + c
    const a = multiply(scale, inverse);
    const perElement = multiply(a, scalar(-1 / count));
    const b = multiply(perElement, multiply(scaleCotangent, inverse));
    const c = subtract(multiply(perElement, biasCotangent), multiply(b, average));
    return [
      add(
        multiply(cotangent, perChannel(a, rank)),
        add(multiply(x, perChannel(b, rank)), perChannel(c, rank)),
      ),
      scaleCotangent,
      biasCotangent,
      undefined,
      undefined,
    ];
  },
  jvp: (value, [xTangent, scaleTangent, biasTangent]) => {
    const {
      inputs: [x, scale, , average, variance],
      attributes: { epsilon },
    } = value;
    const rank = x.shape.length;
    const axes = batchAxes(rank);
    const inverse = reciprocal(sqrt(add(variance, scalar(epsilon))));
    const normalized = multiply(subtract(x, perChannel(average, rank)), perChannel(inverse, rank));
    let tangent = full(value.shape, 0);
    if (xTangent) {
      // ẋ̂ = inverse · (ẋ - mean(ẋ) - x̂ mean(x̂ ẋ))
      const centered = subtract(
        subtract(xTangent, mean(xTangent, axes, true)),
        multiply(normalized, mean(multiply(normalized, xTangent), axes, true)),
      );
      tangent = multiply(centered, perChannel(multiply(scale, inverse), rank));
    }
    if (scaleTangent) tangent = add(tangent, multiply(normalized, perChannel(scaleTangent, rank)));
    if (biasTangent) tangent = add(tangent, perChannel(biasTangent, rank));
    return tangent;
  },
  onnx: (builder, inputs, { attributes: { epsilon } }) =>
    builder.node("BatchNormalization", inputs, { epsilon }),
  couple: coupleChannels,
};

function batchAxes(rank: number): number[] {
  return [...Array(rank).keys()].filter((axis) => axis !== 1);
}

const channelVarianceOperation: Operation<Record<string, never>> = {
  name: "channelVariance",
  semantics: "biased variance of every channel (axis 1) over all other axes, given the means",
  infer: ([x, average]) => {
    checkChannels("channelVariance", [x, average]);
    return { shape: average.shape, dtype: x.dtype };
  },
  evaluate: ([x, average]) => {
    const channels = x.shape[1];
    const [, channelStride] = stridesOf(x.shape);
    const result = new Float64Array(channels);
    x.data.forEach((element, i) => {
      const c = Math.floor(i / channelStride) % channels;
      result[c] += (element - average.data[c]) ** 2;
    });
    return result.map((total) => (total * channels) / x.data.length);
  },
  decompose: ({ inputs: [x, average] }) => {
    const rank = x.shape.length;
    return mean(square(subtract(x, perChannel(average, rank))), batchAxes(rank));
  },
  // E[x²] - E[x]², not negative: one pass less over x. Its error is below 1e-6 of E[x]², which
  // matters only for channels whose mean is a hundred times their deviation.
  onnx: (builder, [x, average], { inputs: [xValue] }) => {
    const total = builder.node(
      "ReduceSumSquare",
      [x, builder.ints(batchAxes(xValue.shape.length))],
      {
        keepdims: 0,
      },
    );
    const fraction = builder.scalar(xValue.shape[1] / sizeOf(xValue.shape));
    const meanSquare = builder.node("Mul", [total, fraction]);
    const squareMean = builder.node("Mul", [average, average]);
    return builder.node("Relu", [builder.node("Sub", [meanSquare, squareMean])]);
  },
};

/**
 * Batch normalisation with the statistics of the batch (training mode), and those statistics: the
 * mean and the biased variance of every channel, [C] each.
 */
export function batchNormTraining(
  x: Value,
  parameters: { scale: Value; bias: Value },
  epsilon: number,
): { result: Value; mean: Value; variance: Value } {
  const average = mean(x, batchAxes(x.shape.length));
  const variance = apply(channelVarianceOperation, [x, average], {});
  const inputs = [x, parameters.scale, parameters.bias, average, variance];
  return {
    result: apply(batchNormTrainingOperation, inputs, { epsilon }),
    mean: average,
    variance,
  };
}

// --- losses ---

/**
 * Cross-entropy of each row of `logits` [N, C] with target distributions `targets` [N, C]; [N].
 */
export function crossEntropy(logits: Value, targets: Value): Value {
  return multiply(sum(multiply(targets, logSoftmax(logits)), [-1]), scalar(-1));
}

const oneHotOperation: Operation<{ depth: number }> = {
  name: "oneHot",
  semantics: "float32 rows of zeros with a one at each index, along a new last axis",
  infer: ([indices], { depth }) => {
    expectInputs(indices.dtype === "int64", "oneHot", "int64 indices", [indices]);
    return { shape: [...indices.shape, depth], dtype: "float32" };
  },
  evaluate: ([indices], value) => {
    const result = new Float64Array(sizeOf(value.shape));
    forEachOffset(indices.shape, [stridesOf(indices.shape)], (flat) => {
      result[flat * value.attributes.depth + indices.data[flat]] = 1;
    });
    return result;
  },
  onnx: (builder, [indices], { attributes: { depth } }) => builder.oneHot(indices, depth),
  pytorch: ([indices], { attributes: { depth } }) =>
    `F.one_hot(${indices}, ${depth}).to(torch.float32)`,
};

/** Rows with a one at each of `indices` (int64) and zeros elsewhere. */
export function oneHot(indices: Value, depth: number): Value {
  return apply(oneHotOperation, [indices], { depth });
}

export const normalizeOperations: readonly Operation[] = [
  meanOperation,
  softmaxOperation,
  logSoftmaxOperation,
  layerNormOperation,
  addChannelsOperation,
  batchNormOperation,
  batchNormTrainingOperation,
  channelVarianceOperation,
  oneHotOperation,
];
