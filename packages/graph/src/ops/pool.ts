/** @file Pooling. Windows as in convolutions; no dilation. */

import { coupleUnary } from "../coupling.ts";
import { paddedImage } from "../pytorch/syntax.ts";
import { apply, expectInputs, type Operation, type Shape, sizeOf, type Value } from "../value.ts";
import { conv, windowCount } from "./convolution.ts";
import { add, cast, greater, maximum, where } from "./elementwise.ts";
import { full, pad, slice } from "./shape.ts";

export interface PoolAttributes {
  readonly kernel: readonly [number, number];
  readonly strides: readonly [number, number];
  /** [top, left, bottom, right]; zeros for averages, ignored for maxima. */
  readonly padding: readonly [number, number, number, number];
}

function pooledShape([n, c, height, width]: Shape, attributes: PoolAttributes): Shape {
  const { kernel, strides, padding } = attributes;
  return [
    n,
    c,
    windowCount(height, kernel[0], strides[0], padding[0] + padding[2], 1),
    windowCount(width, kernel[1], strides[1], padding[1] + padding[3], 1),
  ];
}

function onnxWindow({ kernel, strides, padding }: PoolAttributes) {
  return { kernel_shape: kernel, strides, pads: padding };
}

function pytorchPool(
  name: string,
  x: string,
  { kernel, strides, padding }: PoolAttributes,
  filler = "",
): string {
  return `F.${name}(${paddedImage(x, padding, filler)}, [${kernel.join(", ")}], stride=[${strides.join(", ")}])`;
}

/** Offsets in x of the largest element of every window; the first where several are equal. */
function argmax(x: Float64Array, shape: Shape, attributes: PoolAttributes): Int32Array {
  const { kernel, strides, padding } = attributes;
  const [, , height, width] = shape;
  const pooled = pooledShape(shape, attributes);
  const [, , outHeight, outWidth] = pooled;
  return Int32Array.from({ length: sizeOf(pooled) }, (_, flat) => {
    const q = flat % outWidth;
    const p = Math.floor(flat / outWidth) % outHeight;
    const plane = Math.floor(flat / (outWidth * outHeight)) * height * width;
    let best = -1;
    for (let i = 0; i < kernel[0]; i++) {
      for (let j = 0; j < kernel[1]; j++) {
        const row = p * strides[0] - padding[0] + i;
        const column = q * strides[1] - padding[1] + j;
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        const offset = plane + row * width + column;
        if (best < 0 || x[offset] > x[best]) best = offset;
      }
    }
    return best;
  });
}

// Below every element of an image; it is only compared.
const LOWEST = -3.4e38;

interface Tap {
  readonly row: number;
  readonly column: number;
  /** The elements of the image under this tap of all windows, [N, C, H', W']. */
  readonly elements: Value;
}

/** x [N, C, H, W], padded, tap by tap of the windows in row-major order. */
function tapsOf(x: Value, { kernel, strides, padding }: PoolAttributes, filler: number): Tap[] {
  const [top, left, bottom, right] = padding;
  const surround = (value: Value) => pad(value, [0, 0, top, left], [0, 0, bottom, right]);
  let image = surround(x);
  if (filler !== 0 && padding.some((n) => n > 0)) {
    const inside = cast(surround(full(x.shape, 1)), "bool");
    image = where(inside, image, full(image.shape, filler));
  }
  const [, , height, width] = pooledShape(x.shape, { kernel, strides, padding });
  return Array.from({ length: sizeOf(kernel) }, (_, tap) => {
    const [row, column] = [Math.floor(tap / kernel[1]), tap % kernel[1]];
    const rows = slice(image, 2, row, row + (height - 1) * strides[0] + 1, strides[0]);
    const elements = slice(rows, 3, column, column + (width - 1) * strides[1] + 1, strides[1]);
    return { row, column, elements };
  });
}

const maxPoolOperation: Operation<PoolAttributes> = {
  name: "maxPool",
  semantics: "the largest element of every window",
  infer: ([x], attributes) => {
    const shape = pooledShape(x.shape, attributes);
    expectInputs(
      x.shape.length === 4 && shape.every((n) => n > 0),
      "maxPool",
      "x [N, C, H, W] at least as large as the window",
      [x],
    );
    return { shape, dtype: x.dtype };
  },
  evaluate: ([x], { attributes }) =>
    Float64Array.from(argmax(x.data, x.shape, attributes), (offset) => x.data[offset]),
  vjp: ({ inputs: [x], attributes }, cotangent) => [
    apply(maxPoolGradientOperation, [x, cotangent], attributes),
  ],
  jvp: ({ inputs: [x], attributes }, [tangent]) =>
    tangent && apply(maxPoolSelectOperation, [x, tangent], attributes),
  onnx: (builder, inputs, { attributes }) =>
    builder.node("MaxPool", inputs, onnxWindow(attributes)),
  pytorch: ([x], { attributes }) =>
    pytorchPool("max_pool2d", x, attributes, ', value=float("-inf")'),
  couple: coupleUnary,
};

const maxPoolSelectOperation: Operation<PoolAttributes> = {
  name: "maxPoolSelect",
  semantics: "the elements of the second input at the places where maxPool finds its maxima",
  infer: ([x, tangent], attributes) => {
    expectInputs(
      tangent.shape.join() === x.shape.join(),
      "maxPoolSelect",
      "two tensors of one shape",
      [x, tangent],
    );
    return { shape: pooledShape(x.shape, attributes), dtype: x.dtype };
  },
  evaluate: ([x, tangent], { attributes }) =>
    Float64Array.from(argmax(x.data, x.shape, attributes), (offset) => tangent.data[offset]),
  vjp: ({ inputs: [x], attributes }, cotangent) => [
    undefined,
    apply(maxPoolGradientOperation, [x, cotangent], attributes),
  ],
  jvp: ({ inputs: [x], attributes }, [, tangent]) =>
    tangent && apply(maxPoolSelectOperation, [x, tangent], attributes),
  portable: ({ inputs: [x, tangent], attributes }) => {
    const directions = tapsOf(tangent, attributes, 0);
    let [largest, selected]: (Value | undefined)[] = [];
    tapsOf(x, attributes, LOWEST).forEach(({ elements }, tap) => {
      const direction = directions[tap].elements;
      // Strictly greater: of equal elements the first is taken.
      selected =
        largest && selected ? where(greater(elements, largest), direction, selected) : direction;
      largest = largest ? maximum(elements, largest) : elements;
    });
    return selected!;
  },
  onnx: (builder, [x, tangent], value) => {
    const [, indices] = builder.nodes("MaxPool", [x], 2, onnxWindow(value.attributes));
    const flat = builder.reshape(tangent, value.inputs[1].shape, [sizeOf(value.inputs[1].shape)]);
    return builder.node("Gather", [flat, indices], { axis: 0 });
  },
};

const maxPoolGradientOperation: Operation<PoolAttributes> = {
  name: "maxPoolGradient",
  semantics: "adds each element of y at the place where maxPool(x) found that maximum",
  infer: ([x, y], attributes) => {
    expectInputs(
      y.shape.join() === pooledShape(x.shape, attributes).join(),
      "maxPoolGradient",
      "x and a cotangent of maxPool(x)",
      [x, y],
    );
    return { shape: x.shape, dtype: x.dtype };
  },
  evaluate: ([x, y], { attributes }) => {
    const result = new Float64Array(x.data.length);
    argmax(x.data, x.shape, attributes).forEach((offset, i) => {
      result[offset] += y.data[i];
    });
    return result;
  },
  vjp: ({ inputs: [x], attributes }, cotangent) => [
    undefined,
    apply(maxPoolSelectOperation, [x, cotangent], attributes),
  ],
  jvp: ({ inputs: [x], attributes }, [, tangent]) =>
    tangent && apply(maxPoolGradientOperation, [x, tangent], attributes),
  portable: ({ inputs: [x, y], attributes }) => {
    const { strides, padding } = attributes;
    const [top, left, bottom, right] = padding;
    const taps = tapsOf(x, attributes, LOWEST);
    const largest = taps.map(({ elements }) => elements).reduce(maximum);
    const zero = full(y.shape, 0);
    const [, , height, width] = x.shape;
    // What no earlier tap has taken.
    let rest = y;
    const parts = taps.map(({ row, column, elements }) => {
      const smaller = greater(largest, elements);
      const share = where(smaller, zero, rest);
      rest = where(smaller, rest, zero);
      const after = [
        height + top + bottom - row - ((y.shape[2] - 1) * strides[0] + 1),
        width + left + right - column - ((y.shape[3] - 1) * strides[1] + 1),
      ];
      const gaps = [0, 0, strides[0] - 1, strides[1] - 1];
      return pad(share, [0, 0, row, column], [0, 0, ...after], gaps);
    });
    return slice(slice(parts.reduce(add), 2, top, top + height), 3, left, left + width);
  },
  onnx: (builder, [x, y], value) => {
    const [, indices] = builder.nodes("MaxPool", [x], 2, onnxWindow(value.attributes));
    const count = sizeOf(value.inputs[1].shape);
    const zeros = builder.node("Expand", [builder.scalar(0), builder.ints([sizeOf(value.shape)])]);
    const scattered = builder.node(
      "ScatterElements",
      [
        zeros,
        builder.reshape(indices, value.inputs[1].shape, [count]),
        builder.reshape(y, value.inputs[1].shape, [count]),
      ],
      { axis: 0, reduction: "add" },
    );
    return builder.reshape(scattered, [sizeOf(value.shape)], value.shape);
  },
};

/** Maximum over windows: `x` [N, C, H, W]. */
export function maxPool(x: Value, attributes: PoolAttributes): Value {
  return apply(maxPoolOperation, [x], attributes);
}

const averagePoolOperation: Operation<PoolAttributes> = {
  name: "averagePool",
  semantics: "the average of every window, padding included",
  infer: ([x], attributes) => ({ shape: pooledShape(x.shape, attributes), dtype: x.dtype }),
  evaluate: ([x], value) => {
    const { kernel, strides, padding } = value.attributes;
    const [, , height, width] = x.shape;
    const [, , outHeight, outWidth] = value.shape;
    return Float64Array.from({ length: sizeOf(value.shape) }, (_, flat) => {
      const q = flat % outWidth;
      const p = Math.floor(flat / outWidth) % outHeight;
      const plane = Math.floor(flat / (outWidth * outHeight)) * height * width;
      let total = 0;
      for (let i = 0; i < kernel[0]; i++) {
        for (let j = 0; j < kernel[1]; j++) {
          const row = p * strides[0] - padding[0] + i;
          const column = q * strides[1] - padding[1] + j;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          total += x.data[plane + row * width + column];
        }
      }
      return total / (kernel[0] * kernel[1]);
    });
  },
  decompose: ({ inputs: [x], attributes: { kernel, strides, padding } }) => {
    const channels = x.shape[1];
    const weight = full([channels, 1, ...kernel], 1 / sizeOf(kernel));
    return conv(x, weight, { strides, padding, groups: channels });
  },
  onnx: (builder, inputs, { attributes }) =>
    builder.node("AveragePool", inputs, { ...onnxWindow(attributes), count_include_pad: 1 }),
  pytorch: ([x], { attributes }) => pytorchPool("avg_pool2d", x, attributes),
  couple: coupleUnary,
};

/** Average over windows, padding counted: `x` [N, C, H, W]. */
export function averagePool(x: Value, attributes: PoolAttributes): Value {
  return apply(averagePoolOperation, [x], attributes);
}

export const poolOperations: readonly Operation[] = [
  maxPoolOperation,
  maxPoolSelectOperation,
  maxPoolGradientOperation,
  averagePoolOperation,
];
