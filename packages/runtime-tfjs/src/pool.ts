/** @file Pooling, and what follows the maxima of windows. */
import {
  add,
  avgPool,
  cast,
  greater,
  logicalAnd,
  logicalNot,
  maximum,
  mul,
  maxPool as poolMaxima,
  type Tensor,
  type Tensor4D,
  where,
} from "@tensorflow/tfjs-core";
import { channelsFirst, channelsLast, type Kernel, padded, strided } from "./kernel.ts";

interface Attributes {
  readonly kernel: readonly [number, number];
  readonly strides: readonly [number, number];
  /** [top, left, bottom, right]. */
  readonly padding: readonly [number, number, number, number];
}

// Below every element; infinities would become NaN where they are multiplied by zero.
const LOWEST = -3.4e38;

function pool(
  x: Tensor,
  { kernel, strides, padding }: Attributes,
  filler: number,
  windows: typeof avgPool,
): Tensor {
  const [top, left, bottom, right] = padding;
  const image = padded(channelsLast(x), [0, top, left, 0], [0, bottom, right, 0], [], filler);
  return channelsFirst(windows(image as Tensor4D, [...kernel], [...strides], "valid"));
}

export const maxPool: Kernel = ([x], { attributes }) => pool(x, attributes, LOWEST, poolMaxima);

export const averagePool: Kernel = ([x], { attributes }) => pool(x, attributes, 0, avgPool);

/** The elements of x [N, C, H, W] under each tap of the windows, [N, C, H', W'] each. */
function tapsOf(
  x: Tensor,
  { kernel, strides, padding }: Attributes,
  [outHeight, outWidth]: readonly number[],
  filler: number,
): Tensor[] {
  const [top, left, bottom, right] = padding;
  const image = padded(x, [0, 0, top, left], [0, 0, bottom, right], [], filler);
  const [n, c] = x.shape;
  return Array.from({ length: kernel[0] * kernel[1] }, (_, tap) => {
    const [row, column] = [Math.floor(tap / kernel[1]), tap % kernel[1]];
    const ends = [row + (outHeight - 1) * strides[0] + 1, column + (outWidth - 1) * strides[1] + 1];
    return strided(image, [0, 0, row, column], [n, c, ...ends], [1, 1, ...strides]);
  });
}

export const maxPoolSelect: Kernel = ([x, tangent], { attributes, shape }) => {
  const size = shape.slice(2);
  const elements = tapsOf(x, attributes, size, LOWEST);
  const tangents = tapsOf(tangent, attributes, size, 0);
  let [largest, selected] = [elements[0], tangents[0]];
  // Strictly greater: of equal elements the first is taken.
  elements.slice(1).forEach((element, i) => {
    selected = where(greater(element, largest), tangents[i + 1], selected);
    largest = maximum(element, largest);
  });
  return selected;
};

export const maxPoolGradient: Kernel = ([x, y], { attributes }) => {
  const { kernel, strides, padding } = attributes as Attributes;
  const [top, left, bottom, right] = padding;
  const [n, c, height, width] = x.shape;
  const size = y.shape.slice(2);
  const elements = tapsOf(x, attributes, size, LOWEST);
  const largest = elements.reduce((a, b) => maximum(a, b));
  let open: Tensor | undefined;
  const parts = elements.map((element, tap) => {
    const atMaximum = logicalNot(greater(largest, element));
    const first: Tensor = open === undefined ? atMaximum : logicalAnd(open, atMaximum);
    const others = logicalNot(atMaximum);
    open = open === undefined ? others : logicalAnd(open, others);
    const share = mul(y, cast(first, "float32"));
    const [row, column] = [Math.floor(tap / kernel[1]), tap % kernel[1]];
    const rest = [
      height + top + bottom - row - ((size[0] - 1) * strides[0] + 1),
      width + left + right - column - ((size[1] - 1) * strides[1] + 1),
    ];
    return padded(
      share,
      [0, 0, row, column],
      [0, 0, ...rest],
      [0, 0, strides[0] - 1, strides[1] - 1],
    );
  });
  const total = parts.reduce((a, b) => add(a, b));
  return strided(total, [0, 0, top, left], [n, c, top + height, left + width], [1, 1, 1, 1]);
};
