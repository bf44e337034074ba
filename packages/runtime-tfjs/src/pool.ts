/** @file Pooling. */
import { avgPool, maxPool as poolMaxima, type Tensor, type Tensor4D } from "@tensorflow/tfjs-core";
import { channelsFirst, channelsLast, type Kernel, padded } from "./kernel.ts";

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
