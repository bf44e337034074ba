/** @file Models with weights and activations of 8 bits. */
import type { OnnxGraph, OnnxNode, OnnxTensor, StoredType } from "./builder.ts";
import { storedDataTypes } from "./encode.ts";
import { Rewriter } from "./rewriter.ts";

/** The smallest and the largest element of a tensor, over samples that stand for all. */
export interface Range {
  readonly least: number;
  readonly most: number;
}

// Weights take 7 of their 8 bits: without VNNI instructions, ONNX Runtime adds pairs of products of
// unsigned and signed bytes up in 16 bits, which whole bytes overflow (decision 012).
const LARGEST_WEIGHT = 63;
const LARGEST_ACTIVATION = 255;

// Nodes between convolutions that ONNX Runtime computes on bytes.
const BETWEEN = new Set(["Add", "Concat", "MaxPool"]);

/** The tensors whose ranges `quantize` needs; none where the model has no convolutions. */
export function tensorsToCalibrate(graph: OnnxGraph): string[] {
  if (!graph.nodes.some(({ type }) => type === "Conv")) return [];
  const names = graph.nodes.flatMap((node) => {
    if (BETWEEN.has(node.type)) return node.inputs;
    return weightOf(node, graph) === undefined ? [] : node.inputs.slice(0, 1);
  });
  return [...new Set(names)].filter((name) => !graph.tensors.has(name));
}

/**
 * The same model with weights as int8, one scale for each output channel, and activations as uint8.
 *
 * Tensors whose ranges are given have fixed scales, as pairs of QuantizeLinear and DequantizeLinear
 * around the nodes that compute on them, which ONNX Runtime makes into convolutions of bytes. Matrix
 * products of other tensors find the range of their input when they run (MatMulInteger). What there
 * is no range for, and no such product, stays in float32.
 */
export function quantize(
  graph: OnnxGraph,
  ranges: ReadonlyMap<string, Range>,
): OnnxGraph<StoredType> {
  const rewriter = new Rewriter(graph);
  const scales = scalesOf(graph, ranges);
  const quantized = new Map<string, string>();
  const dynamic = new Map<string, readonly string[]>();
  /** `name` as it is after it was rounded to bytes. */
  const rounded = (name: string): string => {
    const known = quantized.get(name);
    const scale = scales.get(name);
    if (known !== undefined || scale === undefined) return known ?? name;
    const parameters = [
      rewriter.tensor(`${name}.scale`, floats([], [scale.step])),
      rewriter.tensor(`${name}.zero`, {
        dtype: "uint8",
        shape: [],
        data: Uint8Array.of(scale.zero),
      }),
    ];
    const bytes = rewriter.node("QuantizeLinear", [name, ...parameters], `${name}.quantized`);
    const result = rewriter.node("DequantizeLinear", [bytes, ...parameters], `${name}.rounded`);
    quantized.set(name, result);
    return result;
  };
  for (const node of graph.nodes) {
    const weight = weightOf(node, graph);
    const scale = scales.get(node.inputs[0]);
    if (weight !== undefined && scale !== undefined) {
      const inputs = [rounded(node.inputs[0]), ...parametersOf(node, weight, scale.step)];
      rewriter.keep({ ...node, inputs });
    } else if (weight !== undefined && weight.tensor.shape.length === 2) {
      multiplyDynamically(node, weight);
    } else if (BETWEEN.has(node.type)) {
      rewriter.keep({ ...node, inputs: node.inputs.map(rounded) });
    } else rewriter.keep(node);
  }
  return rewriter.graph();

  /** Weight and bias of a node, as bytes and what makes numbers of them. */
  function parametersOf({ inputs: [, name, bias] }: OnnxNode, weight: Weight, step: number) {
    const biases = bias === undefined ? undefined : numbersOf(bias);
    // Sums have 32 bits, in which the bias has to fit, however small the weights of its channel are.
    const least = biases?.map((number) => Math.abs(number) / (step * 2 ** 30));
    const { bytes, steps } = quantizeWeight(weight, least);
    const weights = dequantized(name, bytes, steps, weight.axis);
    if (biases === undefined) return [weights];
    // Products of bytes are whole multiples of this, so the bias is added to their sums as it is.
    const units = steps.map((each) => each * step);
    const data = Int32Array.from(biases, (number, i) => Math.round(number / units[i]));
    return [weights, dequantized(bias, { dtype: "int32", shape: [data.length], data }, units, 0)];
  }

  function numbersOf(name: string): Float32Array {
    return graph.tensors.get(name)!.data as Float32Array;
  }

  function dequantized(
    name: string,
    bytes: OnnxTensor<StoredType>,
    steps: Float32Array,
    axis: number,
  ) {
    const inputs = [
      rewriter.tensor(`${name}.quantized`, bytes),
      rewriter.tensor(`${name}.scale`, floats([steps.length], steps)),
    ];
    return rewriter.node("DequantizeLinear", inputs, `${name}.rounded`, { axis });
  }

  function multiplyDynamically({ inputs, outputs }: OnnxNode, weight: Weight): void {
    const [x, name, bias] = inputs;
    const { bytes, steps } = quantizeWeight(transposed(weight));
    const [quantizedX, step, zero] = quantizedDynamically(x);
    const sums = rewriter.node(
      "MatMulInteger",
      [quantizedX, rewriter.tensor(`${name}.quantized`, bytes), zero],
      `${outputs[0]}.sums`,
    );
    const to = storedDataTypes.float32;
    const numbers = rewriter.node("Cast", [sums], `${outputs[0]}.numbers`, { to });
    const scale = rewriter.tensor(`${name}.scale`, floats([steps.length], steps));
    const factors = [numbers, rewriter.node("Mul", [step, scale], `${name}.unit`)];
    const last = { domain: "", attributes: {}, outputs };
    if (bias === undefined) rewriter.keep({ type: "Mul", inputs: factors, ...last });
    else {
      const product = rewriter.node("Mul", factors, `${outputs[0]}.product`);
      rewriter.keep({ type: "Add", inputs: [product, bias], ...last });
    }
  }

  function quantizedDynamically(x: string): readonly string[] {
    const parts = ["quantized", "scale", "zero"].map((part) => `${x}.${part}`);
    const results = dynamic.get(x) ?? rewriter.nodes("DynamicQuantizeLinear", [x], parts);
    dynamic.set(x, results);
    return results;
  }
}

interface Scale {
  readonly step: number;
  readonly zero: number;
}

/** How each tensor with a range is rounded. */
function scalesOf(graph: OnnxGraph, ranges: ReadonlyMap<string, Range>): Map<string, Scale> {
  const scales = new Map(
    [...ranges].map(([name, range]): [string, Scale] => {
      // Zero, which pads images, has to be exact.
      const [least, most] = [Math.min(range.least, 0), Math.max(range.most, 0)];
      const step = Math.fround((most - least) / LARGEST_ACTIVATION) || 1;
      return [name, { step, zero: Math.round(-least / step) }];
    }),
  );
  for (const { type, inputs, outputs } of graph.nodes) {
    // The largest of some bytes is one of them.
    const scale = type === "MaxPool" ? scales.get(inputs[0]) : undefined;
    if (scale !== undefined && scales.has(outputs[0])) scales.set(outputs[0], scale);
  }
  return scales;
}

/** A constant weight, and the axis that its output channels are on. */
interface Weight {
  readonly tensor: OnnxTensor;
  readonly axis: number;
}

/** The weight of a convolution, linear layer or matrix product. */
function weightOf({ type, inputs, attributes }: OnnxNode, graph: OnnxGraph): Weight | undefined {
  const tensor = graph.tensors.get(inputs[1]);
  if (tensor === undefined || (inputs[2] !== undefined && !graph.tensors.has(inputs[2]))) return;
  if (type === "Conv") return { tensor, axis: 0 };
  if (type === "MatMul" && tensor.shape.length === 2) return { tensor, axis: 1 };
  const { alpha = 1, beta = 1, transA = 0, transB = 0 } = attributes;
  if (type !== "Gemm" || alpha !== 1 || beta !== 1 || transA !== 0) return undefined;
  return { tensor, axis: transB === 1 ? 0 : 1 };
}

/** The matrix with its output channels on axis 1. */
function transposed(weight: Weight): Weight {
  if (weight.axis === 1) return weight;
  const { data, shape } = weight.tensor;
  const [rows, columns] = shape;
  const result = new Float32Array(data.length);
  for (let i = 0; i < result.length; i++) {
    result[(i % columns) * rows + Math.floor(i / columns)] = Number(data[i]);
  }
  return { tensor: { dtype: "float32", shape: [columns, rows], data: result }, axis: 1 };
}

/** The nearest multiples of one step for each output channel, which is at least as large as `least`. */
function quantizeWeight({ tensor, axis }: Weight, least?: Float32Array) {
  const numbers = tensor.data as Float32Array;
  const channels = tensor.shape[axis];
  const inner = tensor.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const channelOf = (i: number) => Math.floor(i / inner) % channels;
  const largest = new Float32Array(channels);
  numbers.forEach((number, i) => {
    const channel = channelOf(i);
    largest[channel] = Math.max(largest[channel], Math.abs(number));
  });
  const steps = largest.map((most, i) => Math.max(most / LARGEST_WEIGHT, least?.[i] ?? 0) || 1);
  const data = Int8Array.from(numbers, (number, i) => {
    return limit(number / steps[channelOf(i)], LARGEST_WEIGHT);
  });
  const bytes: OnnxTensor<StoredType> = { dtype: "int8", shape: tensor.shape, data };
  return { bytes, steps };
}

function limit(number: number, most: number): number {
  return Math.min(Math.max(Math.round(number), -most), most);
}

function floats(shape: readonly number[], data: ArrayLike<number>): OnnxTensor {
  return { dtype: "float32", shape, data: Float32Array.from(data) };
}
