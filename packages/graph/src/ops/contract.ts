/** @file Matrix products. */
import { apply, expectInputs, type Operation, type Shape, sizeOf, type Value } from "../value.ts";
import { add, multiply, square } from "./elementwise.ts";
import { forEachOffset } from "./indexing.ts";
import { broadcastStrides, exchangedOf, reshape, sum, sumTo, transpose } from "./shape.ts";

type NoAttributes = Record<string, never>;

function matmulShape(a: Shape, b: Shape): Shape | undefined {
  if (a.length < 2 || b.length < 2 || a[a.length - 1] !== b[b.length - 2]) return undefined;
  const [aBatch, bBatch] = [a.slice(0, -2), b.slice(0, -2)];
  const rank = Math.max(aBatch.length, bBatch.length);
  const batch: number[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const m = aBatch[axis - rank + aBatch.length] ?? 1;
    const n = bBatch[axis - rank + bBatch.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) return undefined;
    batch.push(m === 1 ? n : m);
  }
  return [...batch, a[a.length - 2], b[b.length - 1]];
}

const matmulOperation: Operation<NoAttributes> = {
  name: "matmul",
  multilinear: true,
  semantics: "matrix product of the last two axes; the others broadcast",
  infer: ([a, b]) => {
    const shape = matmulShape(a.shape, b.shape);
    expectInputs(shape !== undefined, "matmul", "[…, m, k] and […, k, n]", [a, b]);
    return { shape, dtype: a.dtype };
  },
  evaluate: ([a, b], { shape }) => {
    const [rows, columns] = shape.slice(-2);
    const inner = a.shape[a.shape.length - 1];
    const batch = shape.slice(0, -2);
    const result = new Float64Array(sizeOf(shape));
    const strides = [a, b].map((operand) =>
      broadcastStrides(operand.shape.slice(0, -2), batch).map(
        (stride) => stride * sizeOf(operand.shape.slice(-2)),
      ),
    );
    forEachOffset(batch, strides, (flat, [aStart, bStart]) => {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          let total = 0;
          for (let k = 0; k < inner; k++) {
            total += a.data[aStart + i * inner + k] * b.data[bStart + k * columns + j];
          }
          result[(flat * rows + i) * columns + j] = total;
        }
      }
    });
    return result;
  },
  vjp: ({ inputs: [a, b] }, cotangent) => [
    sumTo(matmul(cotangent, transpose(b)), a.shape),
    sumTo(matmul(transpose(a), cotangent), b.shape),
  ],
  jvp: ({ inputs: [a, b] }, [aTangent, bTangent]) => {
    const first = aTangent && matmul(aTangent, b);
    const second = bTangent && matmul(a, bTangent);
    return first && second ? add(first, second) : (first ?? second);
  },
  onnx: (builder, [a, b]) => builder.matmul(a, b),
  pytorch: ([a, b]) => `${a} @ ${b}`,
  // aᵀ b = (bᵀ a)ᵀ: of two matrices the smaller is cheaper to read the other way round. For 192 products of
  // [128, 128]ᵀ and [128, 32] ONNX Runtime 1.30 takes 1.8 ms instead of 2.4.
  simplify: ({ inputs: [a, b], shape }) => {
    const [rows, columns] = shape.slice(-2);
    const exchanged = shape.length > 2 && rows > columns ? exchangedOf(a) : undefined;
    return exchanged && transpose(matmul(transpose(b), exchanged));
  },
  couple: ({ shape, inputs: [a, b] }, [aAxes, bAxes], coupling) => {
    coupling.unite(aAxes[a.shape.length - 1], bAxes[b.shape.length - 2]);
    const batch = shape.slice(0, -2).map((size, axis) => {
      const parts = [a, b].flatMap((operand, i) => {
        const own = axis - shape.length + operand.shape.length;
        return own < 0 || operand.shape[own] !== size ? [] : [[aAxes, bAxes][i][own]];
      });
      return parts.reduce((first, second) => coupling.unite(first, second));
    });
    return [...batch, aAxes[a.shape.length - 2], bAxes[b.shape.length - 1]];
  },
  macs: ({ inputs: [a], shape }) => sizeOf(shape) * a.shape[a.shape.length - 1],
};

/** Matrix product of the last two axes; leading axes broadcast. */
export function matmul(a: Value, b: Value): Value {
  return apply(matmulOperation, [a, b], {});
}

const linearOperation: Operation<NoAttributes> = {
  name: "linear",
  multilinear: true,
  semantics: "x wᵀ: every row of the last axis of x with every row of w",
  infer: ([x, w]) => {
    expectInputs(
      w.shape.length === 2 && x.shape.length >= 2 && x.shape[x.shape.length - 1] === w.shape[1],
      "linear",
      "x […, inputs] and w [outputs, inputs]",
      [x, w],
    );
    return { shape: [...x.shape.slice(0, -1), w.shape[0]], dtype: x.dtype };
  },
  evaluate: ([x, w], { shape }) => {
    const [outputs, inner] = w.shape;
    const result = new Float64Array(sizeOf(shape));
    for (let row = 0; row < result.length / outputs; row++) {
      for (let o = 0; o < outputs; o++) {
        let total = 0;
        for (let k = 0; k < inner; k++) total += x.data[row * inner + k] * w.data[o * inner + k];
        result[row * outputs + o] = total;
      }
    }
    return result;
  },
  vjp: ({ inputs: [x, w] }, cotangent) => {
    const rows = sizeOf(x.shape.slice(0, -1));
    const flatCotangent = reshape(cotangent, [rows, w.shape[0]]);
    const flatInput = reshape(x, [rows, w.shape[1]]);
    return [matmul(cotangent, w), matmul(transpose(flatCotangent), flatInput)];
  },
  jvp: ({ inputs: [x, w] }, [xTangent, wTangent]) => {
    const first = xTangent && linear(xTangent, w);
    const second = wTangent && linear(x, wTangent);
    return first && second ? add(first, second) : (first ?? second);
  },
  onnx: (builder, [x, w], value) =>
    value.shape.length === 2
      ? builder.node("Gemm", [x, w], { transB: 1 })
      : builder.node("MatMul", [x, builder.node("Transpose", [w], { perm: [1, 0] })]),
  pytorch: ([x, w]) => `F.linear(${x}, ${w})`,
  couple: (_value, [x, w], coupling) => {
    coupling.unite(x[x.length - 1], w[1]);
    return [...x.slice(0, -1), w[0]];
  },
  macs: ({ inputs: [, w], shape }) => sizeOf(shape) * w.shape[1],
  layer: ({ inputs: [x, w] }) => {
    const rows = x.shape.slice(0, -1);
    return {
      kind: `linear of ${rows.join("x")} rows`,
      inputs: w.shape[1],
      outputs: w.shape[0],
      shapes: (inputs, outputs) => ({ x: [...rows, inputs], w: [outputs, inputs] }),
      apply: linear,
    };
  },
  rowAxis: ({ shape }) => shape.length - 1,
  regressors: ({ inputs: [x] }) => {
    const [samples, features] = [x.shape[0], x.shape[x.shape.length - 1]];
    const positions = sizeOf(x.shape.slice(1, -1));
    return transpose(reshape(x, [samples, 1, positions, features]));
  },
  // With one row per sample the gradient is the outer product of cotangent and x, so that its
  // squared norm in row o is cotangent_o² |x|².
  sampleNorms: ({ inputs: [x] }, cotangent, input) => {
    expectInputs(input === 1, "linear", "the weight as the parameter of per-sample gradients", [x]);
    if (x.shape.length === 2) return multiply(square(cotangent), sum(square(x), [-1], true));
    const flatten = (value: Value) =>
      reshape(value, [value.shape[0], sizeOf(value.shape.slice(1, -1)), value.shape.at(-1)!]);
    return sum(square(matmul(transpose(flatten(cotangent)), flatten(x))), [-1]);
  },
};

/** Linear layer without bias: `x` […, inputs], `w` [outputs, inputs]; […, outputs]. */
export function linear(x: Value, w: Value): Value {
  return apply(linearOperation, [x, w], {});
}

export const contractOperations: readonly Operation[] = [matmulOperation, linearOperation];
