/** @file How each operation of a graph is computed with TensorFlow.js. */
import { sizeOf } from "@espalier/graph";
import {
  abs,
  add,
  broadcastTo,
  cast,
  clipByValue,
  concat,
  div,
  equal,
  erf,
  exp,
  gather,
  greater,
  log,
  logSoftmax,
  maximum,
  minimum,
  mul,
  neg,
  notEqual,
  oneHot,
  range,
  reciprocal,
  relu,
  reshape,
  rsqrt,
  scatterND,
  sigmoid,
  sign,
  softmax,
  sqrt,
  square,
  step,
  sub,
  sum,
  type Tensor,
  tanh,
  transpose,
  where,
} from "@tensorflow/tfjs-core";
import { conv, convInputGradient, convWeightGradient } from "./convolution.ts";
import { type Kernel, padded, product, strided } from "./kernel.ts";
import { averagePool, maxPool } from "./pool.ts";

type Unary = (x: Tensor) => Tensor;
type Binary = (a: Tensor, b: Tensor) => Tensor;

const unary =
  (compute: Unary): Kernel =>
  ([x]) =>
    compute(x);
const binary =
  (compute: Binary): Kernel =>
  ([a, b]) =>
    compute(a, b);

/** A vector [C] as a shape that broadcasts against [N, C, …]. */
function perChannel(vector: Tensor, rank: number): Tensor {
  return reshape(vector, [vector.size, ...new Array<number>(rank - 2).fill(1)]);
}

/** Averages over axes, which are kept. */
function meanOver(x: Tensor, axes: number[]): Tensor {
  const total = sum(x, axes, true);
  return mul(total, total.size / x.size);
}

const batchNorm: Kernel = ([x, scale, bias, average, variance], { attributes }) => {
  const factor = mul(scale, rsqrt(add(variance, attributes.epsilon)));
  const shift = sub(bias, mul(average, factor));
  return add(mul(x, perChannel(factor, x.rank)), perChannel(shift, x.rank));
};

/** Every portable operation that has operands, by its name in the graph's registry. */
export const kernels: Readonly<Record<string, Kernel>> = {
  negate: unary(neg),
  exp: unary(exp),
  log: unary(log),
  sqrt: unary(sqrt),
  reciprocal: unary(reciprocal),
  tanh: unary(tanh),
  sigmoid: unary(sigmoid),
  erf: unary(erf),
  abs: unary(abs),
  sign: unary(sign),
  relu: unary(relu),
  add: binary(add),
  subtract: binary(sub),
  multiply: binary(mul),
  divide: binary(div),
  maximum: binary(maximum),
  minimum: binary(minimum),
  greater: binary(greater),
  equal: binary(equal),
  reluGradient: ([x, gate]) => mul(x, step(gate)),
  clip: ([x], { attributes: { low, high } }) => clipByValue(x, low, high),
  gelu: ([x]) => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
  where: ([condition, a, b]) => where(condition, a, b),
  cast: ([x], { attributes: { to } }) => {
    // WebAssembly's cast keeps the lowest byte.
    if (to === "bool") return notEqual(x, 0);
    return cast(x, to === "int64" ? "int32" : to);
  },

  reshape: ([x], { shape }) => reshape(x, [...shape]),
  broadcastTo: ([x], { shape }) => broadcastTo(x, [...shape]),
  sum: ([x], { attributes: { axes, keepDimensions } }) => sum(x, axes, keepDimensions),
  transpose: ([x], { attributes: { permutation } }) => transpose(x, permutation),
  slice: ([x], { attributes: { starts, ends, steps } }) => strided(x, starts, ends, steps),
  pad: ([x], { attributes: { before, after, interior } }) => padded(x, before, after, interior),
  concat: (operands, { attributes: { axis } }) => concat([...operands], axis),
  gather: ([x, indices], { attributes: { axis } }) => gather(x, indices, axis),
  scatterAdd: ([indices, rows], { attributes: { axis, length }, shape }) => {
    const [outer, count] = [sizeOf(shape.slice(0, axis)), indices.size];
    const inner = sizeOf(shape.slice(axis + 1));
    // Rows are scattered along a leading axis.
    const leading = reshape(transpose(reshape(rows, [outer, count, inner]), [1, 0, 2]), [
      count,
      outer * inner,
    ]);
    const scattered = scatterND(reshape(indices, [count, 1]), leading, [length, outer * inner]);
    return reshape(transpose(reshape(scattered, [length, outer, inner]), [1, 0, 2]), [...shape]);
  },
  positions: (_operands, { shape }) =>
    broadcastTo(range(0, shape[shape.length - 1], 1, "int32"), [...shape]),

  mean: ([x], { attributes: { axes }, shape }) => reshape(meanOver(x, axes), [...shape]),
  softmax: unary((x) => softmax(x)),
  logSoftmax: unary((x) => logSoftmax(x)),
  layerNorm: ([x, scale, bias], { attributes: { epsilon } }) => {
    const last = [x.rank - 1];
    const centred = sub(x, meanOver(x, last));
    const factor = rsqrt(add(meanOver(square(centred), last), epsilon));
    return add(mul(mul(centred, factor), scale), bias);
  },
  addChannels: ([x, bias]) => add(x, perChannel(bias, x.rank)),
  batchNorm,
  batchNormTraining: batchNorm,
  channelVariance: ([x, average]) => {
    const axes = x.shape.flatMap((_, axis) => (axis === 1 ? [] : [axis]));
    const deviations = square(sub(x, perChannel(average, x.rank)));
    return reshape(meanOver(deviations, axes), average.shape);
  },
  // WebAssembly writes the bits of integers, whatever type is asked for.
  oneHot: ([indices], { attributes: { depth } }) =>
    cast(oneHot(indices, depth, 1, 0, "int32"), "float32"),

  matmul: ([a, b], { shape }, capabilities) => product(a, b, shape, capabilities),
  linear: ([x, w], { shape }, capabilities) => product(x, transpose(w), shape, capabilities),
  conv,
  convInputGradient,
  convWeightGradient,
  maxPool,
  averagePool,
};
