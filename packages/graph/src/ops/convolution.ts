/**
 * @file Convolution and its two gradients.
 *
 * The three are the contractions of one trilinear form ⟨conv(x, w), y⟩, so that the derivative of
 * each is made of the others and no further operation is needed for any order.
 */

import type { OnnxBuilder } from "../onnx/builder.ts";
import { paddedImage, pythonArguments } from "../pytorch/syntax.ts";
import { apply, expectInputs, type Operation, type Shape, sizeOf, type Value } from "../value.ts";
import { add, square } from "./elementwise.ts";
import { concat, pad, reshape, slice, sum } from "./shape.ts";

export interface Window {
  /** Steps of the output, [vertical, horizontal]. */
  readonly strides: readonly [number, number];
  /** Zeros around the input, [top, left, bottom, right]. */
  readonly padding: readonly [number, number, number, number];
  /** Distances of the taps of the kernel. */
  readonly dilations: readonly [number, number];
}

export interface ConvolutionAttributes extends Window {
  readonly groups: number;
}

/** The trilinear form's sizes: all that the three operations share. */
interface Geometry extends ConvolutionAttributes {
  readonly batch: number;
  readonly inputChannels: number;
  readonly outputChannels: number;
  readonly inputSize: readonly [number, number];
  readonly outputSize: readonly [number, number];
  readonly kernel: readonly [number, number];
}

/** Size of the output along one axis. */
export function windowCount(
  size: number,
  kernel: number,
  stride: number,
  padding: number,
  dilation: number,
): number {
  return Math.floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1;
}

function outputSize(size: Shape, kernel: Shape, window: Window): [number, number] {
  const { strides, padding, dilations } = window;
  return [0, 1].map((axis) =>
    windowCount(
      size[axis],
      kernel[axis],
      strides[axis],
      padding[axis] + padding[axis + 2],
      dilations[axis],
    ),
  ) as [number, number];
}

/** The smallest input of which a convolution makes an output of `size`. */
export function smallestInput(size: Shape, kernel: Shape, window: Window): [number, number] {
  const { strides, padding, dilations } = window;
  return [0, 1].map(
    (axis) =>
      strides[axis] * (size[axis] - 1) +
      dilations[axis] * (kernel[axis] - 1) +
      1 -
      padding[axis] -
      padding[axis + 2],
  ) as [number, number];
}

/** Visits every product of the form: flat offsets into x, w and y. */
function forEachProduct(
  geometry: Geometry,
  visit: (x: number, w: number, y: number) => void,
): void {
  const { batch, inputChannels, outputChannels, groups, kernel, strides, padding, dilations } =
    geometry;
  const [height, width] = geometry.inputSize;
  const [outHeight, outWidth] = geometry.outputSize;
  const groupInputs = inputChannels / groups;
  const groupOutputs = outputChannels / groups;
  for (let n = 0; n < batch; n++) {
    for (let k = 0; k < outputChannels; k++) {
      const firstInput = Math.floor(k / groupOutputs) * groupInputs;
      for (let c = 0; c < groupInputs; c++) {
        for (let i = 0; i < kernel[0]; i++) {
          for (let j = 0; j < kernel[1]; j++) {
            const w = ((k * groupInputs + c) * kernel[0] + i) * kernel[1] + j;
            for (let p = 0; p < outHeight; p++) {
              const row = p * strides[0] - padding[0] + i * dilations[0];
              if (row < 0 || row >= height) continue;
              for (let q = 0; q < outWidth; q++) {
                const column = q * strides[1] - padding[1] + j * dilations[1];
                if (column < 0 || column >= width) continue;
                const x = ((n * inputChannels + firstInput + c) * height + row) * width + column;
                visit(x, w, ((n * outputChannels + k) * outHeight + p) * outWidth + q);
              }
            }
          }
        }
      }
    }
  }
}

function multiplyAccumulates(geometry: Geometry): number {
  const { batch, outputChannels, inputChannels, groups, kernel } = geometry;
  const outputs = batch * outputChannels * sizeOf(geometry.outputSize);
  return (outputs * inputChannels * sizeOf(kernel)) / groups;
}

const windowOf = ({ strides, padding, dilations, groups }: ConvolutionAttributes) => ({
  strides,
  padding,
  dilations,
  groups,
});

// --- conv ---

function geometryOfConv(x: Shape, w: Shape, attributes: ConvolutionAttributes): Geometry {
  const kernel = [w[2], w[3]] as const;
  return {
    ...attributes,
    batch: x[0],
    inputChannels: x[1],
    outputChannels: w[0],
    inputSize: [x[2], x[3]],
    outputSize: outputSize(x.slice(2), kernel, attributes),
    kernel,
  };
}

const convOperation: Operation<ConvolutionAttributes> = {
  name: "conv",
  multilinear: true,
  semantics: "y[n,k,p] = Σ_{c,i} x[n,c, strides·p - padding + dilations·i] w[k,c,i], per group",
  infer: ([x, w], attributes) => {
    const { groups } = attributes;
    expectInputs(
      x.shape.length === 4 &&
        w.shape.length === 4 &&
        x.shape[1] === w.shape[1] * groups &&
        w.shape[0] % groups === 0,
      "conv",
      `x [N, C, H, W] and w [K, C / ${groups}, kh, kw]`,
      [x, w],
    );
    const geometry = geometryOfConv(x.shape, w.shape, attributes);
    expectInputs(
      geometry.outputSize.every((n) => n > 0),
      "conv",
      "an input at least as large as the kernel",
      [x, w],
    );
    return { shape: [x.shape[0], w.shape[0], ...geometry.outputSize], dtype: x.dtype };
  },
  evaluate: ([x, w], value) => {
    const result = new Float64Array(sizeOf(value.shape));
    forEachProduct(geometryOfConv(x.shape, w.shape, value.attributes), (xi, wi, yi) => {
      result[yi] += x.data[xi] * w.data[wi];
    });
    return result;
  },
  vjp: ({ inputs: [x, w], attributes }, cotangent) => [
    convInputGradient(cotangent, w, { ...attributes, inputSize: [x.shape[2], x.shape[3]] }),
    convWeightGradient(x, cotangent, { ...attributes, kernel: [w.shape[2], w.shape[3]] }),
  ],
  jvp: ({ inputs: [x, w], attributes }, [xTangent, wTangent]) => {
    const first = xTangent && conv(xTangent, w, attributes);
    const second = wTangent && conv(x, wTangent, attributes);
    return first && second ? add(first, second) : (first ?? second);
  },
  onnx: (builder, [x, w], value) => {
    const { strides, padding, dilations, groups } = value.attributes;
    const { shape } = value.inputs[1];
    return builder.conv(x, w, shape, {
      kernel_shape: shape.slice(2),
      strides,
      pads: padding,
      dilations,
      group: groups,
    });
  },
  pytorch: ([x, w], { attributes: { strides, padding, dilations, groups } }) => {
    const [top, left, bottom, right] = padding;
    const even = top === bottom && left === right;
    const options = pythonArguments({
      stride: [strides, 1],
      padding: [even ? [top, left] : 0, 0],
      dilation: [dilations, 1],
      groups: [groups, 1],
    });
    return `F.conv2d(${even ? x : paddedImage(x, padding)}, ${w}${options})`;
  },
  couple: ({ inputs: [x, w], attributes: { groups } }, [xAxes, wAxes], coupling) => {
    const [rows, columns] = wAxes;
    const inputs = xAxes[1];
    const [outputs, perGroup] = w.shape;
    if (groups === 1) {
      coupling.unite(inputs, columns);
    } else if (perGroup === 1) {
      // Depthwise: a group goes with its channel.
      if (inputs === undefined) coupling.fix(rows);
      inputs?.forEach((channel, c) => {
        const multiplier = outputs / groups;
        for (let k = c * multiplier; k < (c + 1) * multiplier; k++) {
          coupling.uniteChannels(channel, rows![k]);
        }
      });
    } else {
      // Groups must stay of equal size: the same place is kept or removed in all of them.
      if (inputs === undefined) coupling.fix(columns);
      inputs?.forEach((channel, c) => {
        coupling.uniteChannels(columns![c % perGroup], channel);
      });
      rows?.forEach((row, k) => {
        coupling.uniteChannels(rows[k % (outputs / groups)], row);
      });
    }
    coupling.fix(wAxes[2]);
    coupling.fix(wAxes[3]);
    return [xAxes[0], rows, ...x.shape.slice(2).map(() => undefined)];
  },
  macs: ({ inputs: [x, w], attributes }) =>
    multiplyAccumulates(geometryOfConv(x.shape, w.shape, attributes)),
  layer: ({ inputs: [x, w], attributes }) => {
    const [batch, , ...size] = x.shape;
    const [rows, inputs, ...kernel] = w.shape;
    const { groups, strides, padding, dilations } = attributes;
    // Where each group is one channel, there are as many groups as channels.
    const depthwise = groups > 1 && inputs === 1;
    const perGroup = rows / groups;
    return {
      kind: [
        `conv ${kernel.join("x")} of ${batch}x${size.join("x")}`,
        `strides ${strides.join(" ")}, padding ${padding.join(" ")}, dilations ${dilations.join(" ")}`,
        depthwise ? `${perGroup} outputs for each input` : `${groups} groups`,
      ].join(", "),
      inputs,
      outputs: depthwise ? rows : perGroup,
      shapes: (columns, outputs) => {
        const parts = depthwise ? Math.max(1, Math.round(outputs / perGroup)) : groups;
        const resized = depthwise ? perGroup * parts : outputs * parts;
        return { x: [batch, columns * parts, ...size], w: [resized, columns, ...kernel] };
      },
      apply: (tensor, weight) =>
        conv(tensor, weight, { ...attributes, groups: tensor.shape[1] / weight.shape[1] }),
    };
  },
  rowAxis: () => 1,
  regressors: ({ inputs: [x, w], attributes, shape }) => {
    const { strides, padding, dilations, groups } = attributes;
    const [top, left, bottom, right] = padding;
    const padded = pad(x, [0, 0, top, left], [0, 0, bottom, right]);
    const [samples, channels] = x.shape;
    const [height, width] = shape.slice(2);
    const taps: Value[] = [];
    for (let i = 0; i < w.shape[2]; i++) {
      const first = i * dilations[0];
      const rows = slice(padded, 2, first, first + (height - 1) * strides[0] + 1, strides[0]);
      for (let j = 0; j < w.shape[3]; j++) {
        const start = j * dilations[1];
        const tap = slice(rows, 3, start, start + (width - 1) * strides[1] + 1, strides[1]);
        taps.push(reshape(tap, [samples, channels, 1, height * width]));
      }
    }
    const unknowns = (channels / groups) * taps.length;
    return reshape(concat(taps, 2), [samples, groups, unknowns, height * width]);
  },
  // Per-sample gradients are those of one sample with as many groups as there are samples.
  sampleNorms: ({ inputs: [x, w], attributes }, cotangent, input) => {
    expectInputs(input === 1, "conv", "the weight as the parameter of per-sample gradients", [
      x,
      w,
    ]);
    const [batch, channels] = cotangent.shape;
    const merge = (value: Value) =>
      reshape(value, [1, value.shape[0] * value.shape[1], value.shape[2], value.shape[3]]);
    const gradients = convWeightGradient(merge(x), merge(cotangent), {
      ...attributes,
      groups: attributes.groups * batch,
      kernel: [w.shape[2], w.shape[3]],
    });
    return reshape(sum(square(gradients), [1, 2, 3]), [batch, channels]);
  },
};

/** Strides 1, no padding, no dilation, one group, unless given. */
function complete(attributes: Partial<ConvolutionAttributes>): ConvolutionAttributes {
  return {
    strides: attributes.strides ?? [1, 1],
    padding: attributes.padding ?? [0, 0, 0, 0],
    dilations: attributes.dilations ?? [1, 1],
    groups: attributes.groups ?? 1,
  };
}

/** Two-dimensional convolution: `x` [N, C, H, W], `w` [K, C / groups, kh, kw]; [N, K, H', W']. */
export function conv(x: Value, w: Value, attributes: Partial<ConvolutionAttributes> = {}): Value {
  return apply(convOperation, [x, w], complete(attributes));
}

// --- convInputGradient ---

interface InputGradientAttributes extends ConvolutionAttributes {
  readonly inputSize: readonly [number, number];
}

function geometryOfInputGradient(
  y: Shape,
  w: Shape,
  attributes: InputGradientAttributes,
): Geometry {
  return {
    ...attributes,
    batch: y[0],
    inputChannels: w[1] * attributes.groups,
    outputChannels: w[0],
    outputSize: [y[2], y[3]],
    kernel: [w[2], w[3]],
  };
}

function checkOutputSize(name: string, geometry: Geometry, inputs: readonly Value[]): void {
  const expected = outputSize(geometry.inputSize, geometry.kernel, geometry);
  expectInputs(
    expected[0] === geometry.outputSize[0] && expected[1] === geometry.outputSize[1],
    name,
    `a cotangent of size [${expected}]`,
    inputs,
  );
}

const convInputGradientOperation: Operation<InputGradientAttributes> = {
  name: "convInputGradient",
  multilinear: true,
  semantics: "the gradient of ⟨conv(x, w), y⟩ with respect to x",
  infer: ([y, w], attributes) => {
    expectInputs(
      y.shape.length === 4 && w.shape.length === 4 && y.shape[1] === w.shape[0],
      "convInputGradient",
      "y [N, K, H', W'] and w [K, C / groups, kh, kw]",
      [y, w],
    );
    const geometry = geometryOfInputGradient(y.shape, w.shape, attributes);
    checkOutputSize("convInputGradient", geometry, [y, w]);
    return { shape: [y.shape[0], geometry.inputChannels, ...attributes.inputSize], dtype: y.dtype };
  },
  evaluate: ([y, w], value) => {
    const result = new Float64Array(sizeOf(value.shape));
    forEachProduct(geometryOfInputGradient(y.shape, w.shape, value.attributes), (xi, wi, yi) => {
      result[xi] += y.data[yi] * w.data[wi];
    });
    return result;
  },
  vjp: ({ inputs: [y, w], attributes }, cotangent) => [
    conv(cotangent, w, windowOf(attributes)),
    convWeightGradient(cotangent, y, { ...attributes, kernel: [w.shape[2], w.shape[3]] }),
  ],
  jvp: ({ inputs: [y, w], attributes }, [yTangent, wTangent]) => {
    const first = yTangent && convInputGradient(yTangent, w, attributes);
    const second = wTangent && convInputGradient(y, wTangent, attributes);
    return first && second ? add(first, second) : (first ?? second);
  },
  onnx: (builder, [y, w], value) => {
    const [yShape, wShape] = value.inputs.map(({ shape }) => shape);
    const geometry = geometryOfInputGradient(yShape, wShape, value.attributes);
    return emitInputGradient(builder, y, w, geometry);
  },
  macs: ({ inputs: [y, w], attributes }) =>
    multiplyAccumulates(geometryOfInputGradient(y.shape, w.shape, attributes)),
};

/**
 * A convolution of the cotangent with the kernel turned round and its channel axes exchanged: up to
 * 3 times as fast as ConvTranspose.
 *
 * With strides (s, t), input positions fall into s·t phases, each of which sees every s-th row and
 * t-th column of the kernel. One convolution at the output's size computes all phases as channels,
 * and DepthToSpace interleaves them.
 */
function emitInputGradient(builder: OnnxBuilder, y: string, w: string, geometry: Geometry): string {
  const { batch, groups, inputChannels, inputSize, kernel, strides, dilations } = geometry;
  if ([0, 1].some((axis) => strides[axis] > 1 && dilations[axis] > 1)) {
    // Rare, and phases do not have whole kernels here.
    return emitTransposedConvolution(builder, y, w, geometry);
  }
  const axes = [0, 1].map((axis) => {
    const stride = strides[axis];
    const size = inputSize[axis];
    const padding = geometry.padding[axis];
    // The input is extended to a whole number of strides.
    const dilation = dilations[axis];
    // Zeros before the kernel, so that tap stride·u + r belongs to phase r.
    const front = (stride - (padding % stride)) % stride;
    const taps = Math.ceil((kernel[axis] + front) / stride);
    const positions = Math.ceil(size / stride);
    const before =
      stride === 1 ? dilation * (taps - 1) - padding : taps - 1 - Math.ceil(padding / stride);
    const after = positions - geometry.outputSize[axis] + dilation * (taps - 1) - before;
    return { stride, front, taps, positions, before, after, crop: positions * stride - size };
  });
  const [rows, columns] = axes;
  const phases = rows.stride * columns.stride;

  let source = y;
  const pads = [rows.before, columns.before, rows.after, columns.after];
  if (pads.some((width) => width < 0)) {
    // Conv accepts no negative padding: crop first.
    const crop = pads.map((width) => Math.min(width, 0));
    const widths = [0, 0, crop[0], crop[1], 0, 0, crop[2], crop[3]];
    source = builder.node("Pad", [source, builder.ints(widths)]);
  }
  const turned = turnedKernel(builder, w, geometry, rows, columns);
  const taps = [rows.taps, columns.taps];
  const turnedShape = [inputChannels * phases, geometry.outputChannels / groups, ...taps];
  const gradients = builder.conv(source, turned, turnedShape, {
    kernel_shape: taps,
    strides: [1, 1],
    pads: pads.map((width) => Math.max(width, 0)),
    dilations,
    group: groups,
  });
  if (phases === 1) return gradients;
  const interleaved = interleave(builder, gradients, [batch, inputChannels], rows, columns);
  if (rows.crop === 0 && columns.crop === 0) return interleaved;
  const widths = [0, 0, 0, 0, 0, 0, -rows.crop, -columns.crop];
  return builder.node("Pad", [interleaved, builder.ints(widths)]);
}

function emitTransposedConvolution(
  builder: OnnxBuilder,
  y: string,
  w: string,
  geometry: Geometry,
): string {
  const { outputSize, inputSize, kernel, strides, padding, dilations, groups } = geometry;
  const reached = smallestInput(outputSize, kernel, geometry);
  return builder.node("ConvTranspose", [y, w], {
    kernel_shape: kernel,
    strides,
    pads: padding,
    dilations,
    group: groups,
    // Input that no window reaches, at the end.
    output_padding: reached.map((size, axis) => inputSize[axis] - size),
  });
}

interface Phases {
  readonly stride: number;
  readonly front: number;
  readonly taps: number;
  readonly positions: number;
}

/** w [K, C/g, kh, kw] as [C·s·t, K/g, taps, taps], both kernel axes reversed. */
function turnedKernel(
  builder: OnnxBuilder,
  w: string,
  { groups, inputChannels, outputChannels, kernel }: Geometry,
  rows: Phases,
  columns: Phases,
): string {
  const inputs = inputChannels / groups;
  const outputs = outputChannels / groups;
  const [height, width] = [rows.taps * rows.stride, columns.taps * columns.stride];
  let result = w;
  if (height !== kernel[0] || width !== kernel[1]) {
    const after = [height - kernel[0] - rows.front, width - kernel[1] - columns.front];
    const widths = [0, 0, rows.front, columns.front, 0, 0, ...after];
    result = builder.node("Pad", [result, builder.ints(widths)]);
  }
  const split = [groups, outputs, inputs, rows.taps, rows.stride, columns.taps, columns.stride];
  result = builder.reshape(result, [outputChannels, inputs, height, width], split);
  if (rows.taps > 1 || columns.taps > 1) {
    const first = builder.ints([-1, -1]);
    const last = builder.ints([-rows.taps - 1, -columns.taps - 1]);
    result = builder.node("Slice", [result, first, last, builder.ints([3, 5]), first]);
  }
  result = builder.node("Transpose", [result], { perm: [0, 2, 4, 6, 1, 3, 5] });
  return builder.reshape(
    result,
    [groups, inputs, rows.stride, columns.stride, outputs, rows.taps, columns.taps],
    [inputChannels * rows.stride * columns.stride, outputs, rows.taps, columns.taps],
  );
}

/** [N, C·s·t, P, Q] as [N, C, P·s, Q·t]. */
function interleave(
  builder: OnnxBuilder,
  x: string,
  lead: Shape,
  rows: Phases,
  columns: Phases,
): string {
  if (rows.stride === columns.stride) {
    return builder.node("DepthToSpace", [x], { blocksize: rows.stride, mode: "CRD" });
  }
  const [n, c] = lead;
  const phases = [n, c * rows.stride * columns.stride, rows.positions, columns.positions];
  const split = [n, c, rows.stride, columns.stride, rows.positions, columns.positions];
  const turned = builder.node("Transpose", [builder.reshape(x, phases, split)], {
    perm: [0, 1, 4, 2, 5, 3],
  });
  return builder.reshape(
    turned,
    [n, c, rows.positions, rows.stride, columns.positions, columns.stride],
    [n, c, rows.positions * rows.stride, columns.positions * columns.stride],
  );
}

/** The gradient of ⟨conv(x, w), y⟩ with respect to x: [N, C, H, W]. */
export function convInputGradient(y: Value, w: Value, attributes: InputGradientAttributes): Value {
  const { inputSize } = attributes;
  return apply(convInputGradientOperation, [y, w], { ...windowOf(attributes), inputSize });
}

// --- convWeightGradient ---

interface WeightGradientAttributes extends ConvolutionAttributes {
  readonly kernel: readonly [number, number];
}

function geometryOfWeightGradient(
  x: Shape,
  y: Shape,
  attributes: WeightGradientAttributes,
): Geometry {
  return {
    ...attributes,
    batch: x[0],
    inputChannels: x[1],
    outputChannels: y[1],
    inputSize: [x[2], x[3]],
    outputSize: [y[2], y[3]],
  };
}

const convWeightGradientOperation: Operation<WeightGradientAttributes> = {
  name: "convWeightGradient",
  multilinear: true,
  semantics: "the gradient of ⟨conv(x, w), y⟩ with respect to w",
  infer: ([x, y], attributes) => {
    const { groups, kernel } = attributes;
    expectInputs(
      x.shape.length === 4 &&
        y.shape.length === 4 &&
        x.shape[0] === y.shape[0] &&
        x.shape[1] % groups === 0 &&
        y.shape[1] % groups === 0,
      "convWeightGradient",
      `x [N, C, H, W] and y [N, K, H', W'] of ${groups} groups`,
      [x, y],
    );
    const geometry = geometryOfWeightGradient(x.shape, y.shape, attributes);
    checkOutputSize("convWeightGradient", geometry, [x, y]);
    return { shape: [y.shape[1], x.shape[1] / groups, ...kernel], dtype: x.dtype };
  },
  evaluate: ([x, y], value) => {
    const result = new Float64Array(sizeOf(value.shape));
    forEachProduct(geometryOfWeightGradient(x.shape, y.shape, value.attributes), (xi, wi, yi) => {
      result[wi] += x.data[xi] * y.data[yi];
    });
    return result;
  },
  vjp: ({ inputs: [x, y], attributes }, cotangent) => [
    convInputGradient(y, cotangent, { ...attributes, inputSize: [x.shape[2], x.shape[3]] }),
    conv(x, cotangent, windowOf(attributes)),
  ],
  jvp: ({ inputs: [x, y], attributes }, [xTangent, yTangent]) => {
    const first = xTangent && convWeightGradient(xTangent, y, attributes);
    const second = yTangent && convWeightGradient(x, yTangent, attributes);
    return first && second ? add(first, second) : (first ?? second);
  },
  onnx: (builder, [x, y], value) => {
    const [xShape, yShape] = value.inputs.map(({ shape }) => shape);
    return emitWeightGradient(
      builder,
      x,
      y,
      geometryOfWeightGradient(xShape, yShape, value.attributes),
    );
  },
  macs: ({ inputs: [x, y], attributes }) =>
    multiplyAccumulates(geometryOfWeightGradient(x.shape, y.shape, attributes)),
  // Shifted copies of both operands, one product per tap, and their stack.
  workspaceBytes: ({ inputs: [x, y], attributes: { kernel, groups } }) => {
    const taps = sizeOf(kernel);
    const products = taps * x.shape[0] * y.shape[1] * (x.shape[1] / groups);
    const copies = kernel[1] * sizeOf(x.shape) + kernel[0] * sizeOf(y.shape);
    return 4 * (taps === 1 ? products : copies + 2 * products);
  },
};

/** The gradient of ⟨conv(x, w), y⟩ with respect to w: [K, C / groups, kh, kw]. */
export function convWeightGradient(
  x: Value,
  y: Value,
  attributes: WeightGradientAttributes,
): Value {
  const { kernel } = attributes;
  return apply(convWeightGradientOperation, [x, y], { ...windowOf(attributes), kernel });
}

/**
 * One product of matrices per tap of the kernel, [N, G, K/G, L] by [N, G, L, C/G], summed over N.
 *
 * Where every tap sees a whole-image shift of the input (stride 1, output as large as the input),
 * the shift along the width is applied to x and the one along the height to y, so that a k×k kernel
 * needs 2(k - 1) shifted copies instead of k². Measured: 1.2 to 2.9 times as fast as unfolding.
 * Images are shifted as vectors, since padding costs a runtime as much per row as per thousand
 * elements; columns that would come round to the other side are cleared before.
 */
function emitWeightGradient(
  builder: OnnxBuilder,
  x: string,
  y: string,
  geometry: Geometry,
): string {
  const { batch, groups, inputChannels, outputChannels, kernel, strides, padding, dilations } =
    geometry;
  const [height, width] = geometry.inputSize;
  const [outHeight, outWidth] = geometry.outputSize;
  const xShape = [batch, inputChannels, height, width];
  const yShape = [batch, outputChannels, outHeight, outWidth];
  const rows = (tensor: string, channels: number, length: number, from: Shape) =>
    builder.reshape(tensor, from, [batch, groups, channels / groups, length]);
  const product = (xTap: string, yTap: string, length: number, xFrom: Shape, yFrom: Shape) => {
    const columns = builder.node("Transpose", [rows(xTap, inputChannels, length, xFrom)], {
      perm: [0, 1, 3, 2],
    });
    const perSample = builder.node("MatMul", [rows(yTap, outputChannels, length, yFrom), columns]);
    return batch === 1
      ? perSample
      : builder.node("ReduceSum", [perSample, builder.ints([0])], { keepdims: 1 });
  };

  const whole = strides[0] === 1 && strides[1] === 1 && outHeight === height && outWidth === width;
  const taps: string[] = [];
  if (whole) {
    const positions = height * width;
    const xFlat = [batch, inputChannels, positions];
    const yFlat = [batch, outputChannels, positions];
    /** Later by `offset` positions; zeros come in. */
    const shifted = (image: string, offset: number) => {
      if (offset === 0) return image;
      if (Math.abs(offset) >= positions) return builder.node("Mul", [image, builder.scalar(0)]);
      return builder.node("Pad", [image, builder.ints([0, 0, offset, 0, 0, -offset])]);
    };
    /** Without the columns that a shift to the right by `offset` carries over the edge. */
    const cleared = (image: string, offset: number) => {
      if (offset === 0) return image;
      const mask = Array.from({ length: positions }, (_, position) => {
        const column = (position % width) + offset;
        return column >= 0 && column < width ? 1 : 0;
      });
      return builder.node("Mul", [image, builder.floats([positions], mask)]);
    };
    const image = builder.reshape(x, xShape, xFlat);
    const cotangent = builder.reshape(y, yShape, yFlat);
    const columns = Array.from({ length: kernel[1] }, (_, j) => {
      const offset = padding[1] - j * dilations[1];
      return shifted(cleared(image, offset), offset);
    });
    for (let i = 0; i < kernel[0]; i++) {
      const yTap = shifted(cotangent, (i * dilations[0] - padding[0]) * width);
      for (let j = 0; j < kernel[1]; j++) {
        taps.push(product(columns[j], yTap, positions, xFlat, yFlat));
      }
    }
  } else {
    const padded = padding.some((n) => n > 0)
      ? builder.node("Pad", [
          x,
          builder.ints([0, 0, padding[0], padding[1], 0, 0, padding[2], padding[3]]),
        ])
      : x;
    for (let i = 0; i < kernel[0]; i++) {
      for (let j = 0; j < kernel[1]; j++) {
        const start = [i * dilations[0], j * dilations[1]];
        const end = [0, 1].map(
          (axis) => start[axis] + (geometry.outputSize[axis] - 1) * strides[axis] + 1,
        );
        const view = builder.node("Slice", [
          padded,
          builder.ints(start),
          builder.ints(end),
          builder.ints([2, 3]),
          builder.ints(strides),
        ]);
        const viewShape = [batch, inputChannels, outHeight, outWidth];
        taps.push(product(view, y, outHeight * outWidth, viewShape, yShape));
      }
    }
  }

  const weight = [outputChannels, inputChannels / groups];
  const perTap = [1, groups, outputChannels / groups, inputChannels / groups];
  if (taps.length === 1) return builder.reshape(taps[0], perTap, [...weight, 1, 1]);
  const stacked = builder.node("Concat", taps, { axis: 0 });
  const flat = builder.reshape(
    stacked,
    [taps.length, ...perTap.slice(1)],
    [taps.length, sizeOf(weight)],
  );
  const turned = builder.node("Transpose", [flat], { perm: [1, 0] });
  return builder.reshape(turned, [sizeOf(weight), taps.length], [...weight, ...kernel]);
}

export const convolutionOperations: readonly Operation[] = [
  convOperation,
  convInputGradientOperation,
  convWeightGradientOperation,
];
