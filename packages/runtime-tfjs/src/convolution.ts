/**
 * @file Convolution and its two gradients.
 *
 * All backends convolve [N, H, W, C] with [kh, kw, C, K] in one group, or depthwise. Gradients that
 * a backend has no fast kernel for are convolutions themselves: of the cotangent with the kernel
 * turned round, and of input and cotangent with batch and channels exchanged.
 */
import {
  concat,
  conv2d,
  depthwiseConv2d,
  engine,
  reshape,
  reverse,
  slice,
  sum,
  type Tensor,
  type Tensor4D,
  transpose,
} from "@tensorflow/tfjs-core";
import {
  type Capabilities,
  channelsFirst,
  channelsLast,
  type Kernel,
  padded,
  product,
  shapeOf,
  strided,
} from "./kernel.ts";

type Pair = readonly [number, number];

interface Window {
  readonly strides: Pair;
  /** [top, left, bottom, right]. */
  readonly padding: readonly [number, number, number, number];
  readonly dilations: Pair;
}

interface Attributes extends Window {
  readonly groups: number;
}

type Size4 = [number, number, number, number];

/** Zeros around [N, H, W, C]; negative widths crop. */
function surrounded(x: Tensor, [top, left, bottom, right]: readonly number[]): Tensor {
  let result = x;
  if ([top, left, bottom, right].some((width) => width < 0)) {
    const [n, height, width, channels] = x.shape;
    const [up, before] = [Math.max(-top, 0), Math.max(-left, 0)];
    const size = [height - up - Math.max(-bottom, 0), width - before - Math.max(-right, 0)];
    result = slice(x, [0, up, before, 0], [n, ...size, channels]);
  }
  const [above, before, below, after] = [top, left, bottom, right].map((n) => Math.max(n, 0));
  return padded(result, [0, above, before, 0], [0, below, after, 0]);
}

/** [N, H, W, C] by [kh, kw, C, K]; [N, H', W', K]. */
function convolve(x: Tensor, filter: Tensor, window: Window): Tensor {
  const { strides, padding, dilations } = window;
  const [above, before, below, after] = padding;
  const dilated = dilations.some((n) => n > 1);
  // No kernel has both strides and dilations: zeros between the taps say the same.
  const both = dilated && strides.some((n) => n > 1);
  return conv2d(
    x as Tensor4D,
    (both ? spreadTaps(filter, dilations) : filter) as Tensor4D,
    [...strides],
    [
      [0, 0],
      [above, below],
      [before, after],
      [0, 0],
    ],
    "NHWC",
    both ? [1, 1] : [...dilations],
  );
}

function spreadTaps(filter: Tensor, [rows, columns]: Pair): Tensor {
  return padded(filter, [0, 0, 0, 0], [0, 0, 0, 0], [rows - 1, columns - 1, 0, 0]);
}

/** Channels `first` to `first + count` of [N, H, W, C]. */
function channels(x: Tensor, first: number, count: number): Tensor {
  const [n, height, width] = x.shape;
  return slice(x, [0, 0, 0, first], [n, height, width, count]);
}

export const conv: Kernel = ([x, w], value) => {
  const attributes = value.attributes as Attributes;
  const { groups, strides, dilations, padding } = attributes;
  const image = channelsLast(x);
  const [outputs, perGroup, height, width] = w.shape;
  if (groups === 1) {
    return channelsFirst(convolve(image, transpose(w, [2, 3, 1, 0]), attributes));
  }
  if (perGroup === 1 && strides[0] === strides[1]) {
    const filter = transpose(reshape(w, [groups, outputs / groups, height, width]), [2, 3, 0, 1]);
    const spread = spreadTaps(filter, dilations);
    const result = depthwiseConv2d(
      surrounded(image, padding) as Tensor4D,
      spread as Tensor4D,
      [...strides],
      "valid",
    );
    return channelsFirst(result);
  }
  const filters = transpose(w, [2, 3, 1, 0]);
  const rows = outputs / groups;
  const parts = Array.from({ length: groups }, (_, group) =>
    convolve(
      channels(image, group * perGroup, perGroup),
      slice(filters, [0, 0, 0, group * rows], [height, width, perGroup, rows]),
      attributes,
    ),
  );
  return channelsFirst(concat(parts, 3));
};

/** Of one group: y [N, H', W', K] and w [K, C, kh, kw]; [N, H, W, C]. */
function inputGradient(
  y: Tensor,
  w: Tensor,
  window: Window,
  [height, width]: Pair,
  { fast }: Capabilities,
): Tensor {
  const { strides, padding, dilations } = window;
  const [top, left, bottom, right] = padding;
  const [, inputs, ...taps] = w.shape;
  const extents = taps.map((n, axis) => (n - 1) * dilations[axis] + 1);
  const fastKernel = "Conv2DBackpropInput";
  if (fast.has(fastKernel)) {
    const size: Size4 = [y.shape[0], height + top + bottom, width + left + right, inputs];
    const filter = spreadTaps(transpose(w, [2, 3, 1, 0]), dilations);
    const whole = engine().runKernel(
      fastKernel,
      { dy: y, filter },
      { strides: [...strides], pad: "valid", dataFormat: "NHWC", inputShape: size },
    ) as Tensor;
    return slice(whole, [0, top, left, 0], [y.shape[0], height, width, inputs]);
  }
  const spread = padded(y, [0, 0, 0, 0], [0, 0, 0, 0], [0, strides[0] - 1, strides[1] - 1, 0]);
  const before = [extents[0] - 1 - top, extents[1] - 1 - left];
  const after = [height, width].map(
    (size, axis) => size + extents[axis] - 1 - before[axis] - spread.shape[axis + 1],
  );
  const turned = reverse(transpose(w, [2, 3, 0, 1]), [0, 1]);
  return convolve(surrounded(spread, [...before, ...after]), turned, {
    strides: [1, 1],
    padding: [0, 0, 0, 0],
    dilations,
  });
}

export const convInputGradient: Kernel = ([y, w], value, capabilities) => {
  const attributes = value.attributes as Attributes & { readonly inputSize: Pair };
  const { groups, inputSize } = attributes;
  const cotangent = channelsLast(y);
  const [outputs, perGroup, height, width] = w.shape;
  const rows = outputs / groups;
  if (groups === 1) {
    return channelsFirst(inputGradient(cotangent, w, attributes, inputSize, capabilities));
  }
  if (perGroup === 1 && rows === 1)
    return depthwiseInputGradient(cotangent, w, attributes, inputSize);
  const parts = Array.from({ length: groups }, (_, group) =>
    inputGradient(
      channels(cotangent, group * rows, rows),
      slice(w, [group * rows, 0, 0, 0], [rows, perGroup, height, width]),
      attributes,
      inputSize,
      capabilities,
    ),
  );
  return channelsFirst(concat(parts, 3));
};

/** Every channel by itself: y [N, H', W', C] and w [C, 1, kh, kw]; [N, C, H, W]. */
function depthwiseInputGradient(
  y: Tensor,
  w: Tensor,
  { strides, padding, dilations }: Window,
  [height, width]: Pair,
): Tensor {
  const filter = spreadTaps(transpose(w, [2, 3, 0, 1]), dilations);
  const [rows, columns] = shapeOf(filter);
  const spread = padded(y, [0, 0, 0, 0], [0, 0, 0, 0], [0, strides[0] - 1, strides[1] - 1, 0]);
  const [, spreadRows, spreadColumns] = shapeOf(spread);
  const before = [rows - 1 - padding[0], columns - 1 - padding[1]];
  const after = [
    height + rows - 1 - before[0] - spreadRows,
    width + columns - 1 - before[1] - spreadColumns,
  ];
  const source = surrounded(spread, [...before, ...after]);
  const turned = reverse(filter, [0, 1]);
  return channelsFirst(depthwiseConv2d(source as Tensor4D, turned as Tensor4D, 1, "valid"));
}

export const convWeightGradient: Kernel = ([x, y], value, capabilities) => {
  const attributes = value.attributes as Attributes & { readonly kernel: Pair };
  const { groups, kernel, padding, strides, dilations } = attributes;
  if (groups > 1) return unfoldedWeightGradient(x, y, attributes, kernel, capabilities);
  const fastKernel = "Conv2DBackpropFilter";
  const [inputs, outputs] = [shapeOf(x)[1], shapeOf(y)[1]];
  if (capabilities.fast.has(fastKernel)) {
    const extents = kernel.map((n, axis) => (n - 1) * dilations[axis] + 1);
    const size: Size4 = [extents[0], extents[1], inputs, outputs];
    const whole = engine().runKernel(
      fastKernel,
      { x: surrounded(channelsLast(x), padding), dy: channelsLast(y) },
      {
        strides: [...strides],
        pad: "valid",
        dataFormat: "NHWC",
        dimRoundingMode: "floor",
        filterShape: size,
      },
    ) as Tensor;
    const taps = strided(whole, [0, 0, 0, 0], size, [...dilations, 1, 1]);
    return transpose(taps, [3, 2, 0, 1]);
  }
  // Channels as batch, batch as channels; the cotangent is a large kernel, dilated by the strides.
  const result = convolve(transpose(x, [1, 2, 3, 0]), transpose(y, [2, 3, 0, 1]), {
    strides: dilations,
    padding,
    dilations: strides,
  });
  // Input that no window reaches adds positions at the end.
  const taps = slice(result, [0, 0, 0, 0], [inputs, ...kernel, outputs]);
  return transpose(taps, [3, 0, 1, 2]);
};

/**
 * Of several groups: one product of matrices per sample and group, of the cotangent [K / G, H'·W']
 * by the unfolded input [H'·W', kh·kw·C / G]. Per-sample gradients have as many groups as samples.
 */
function unfoldedWeightGradient(
  x: Tensor,
  y: Tensor,
  { groups, padding, strides, dilations }: Attributes,
  kernel: Pair,
  capabilities: Capabilities,
): Tensor {
  const [batch, allInputs, height, width] = x.shape;
  const [, allOutputs, outHeight, outWidth] = y.shape;
  const [inputs, outputs] = [allInputs / groups, allOutputs / groups];
  const parts = batch * groups;
  const images = surrounded(channelsLast(reshape(x, [parts, inputs, height, width])), padding);
  const taps: Tensor[] = [];
  for (let i = 0; i < kernel[0]; i++) {
    for (let j = 0; j < kernel[1]; j++) {
      const [row, column] = [i * dilations[0], j * dilations[1]];
      const end = [
        row + (outHeight - 1) * strides[0] + 1,
        column + (outWidth - 1) * strides[1] + 1,
      ];
      taps.push(strided(images, [0, row, column, 0], [parts, ...end, inputs], [1, ...strides, 1]));
    }
  }
  const positions = outHeight * outWidth;
  const columns = taps.length * inputs;
  const products = product(
    reshape(y, [parts, outputs, positions]),
    reshape(taps.length === 1 ? taps[0] : concat(taps, 3), [parts, positions, columns]),
    [parts, outputs, columns],
    capabilities,
  );
  const perGroup = reshape(products, [batch, allOutputs, taps.length, inputs]);
  const total =
    batch === 1 ? reshape(perGroup, [allOutputs, taps.length, inputs]) : sum(perGroup, 0);
  return reshape(transpose(total, [0, 2, 1]), [allOutputs, inputs, ...kernel]);
}
