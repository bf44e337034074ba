/** @file Element-wise operations; binary ones broadcast as NumPy does. */

import { coupleElementwise, coupleUnary } from "../coupling.ts";
import { pythonNumber, pytorchType } from "../pytorch/syntax.ts";
import {
  apply,
  type DType,
  expectInputs,
  type Operation,
  type Shape,
  sameShape,
  sizeOf,
  type Value,
} from "../value.ts";
import { forEachOffset } from "./indexing.ts";
import { isConstant, scalar } from "./leaf.ts";
import {
  broadcastOperation,
  broadcastRowAxis,
  broadcastStrides,
  broadcastTo,
  full,
  reshape,
  sum,
  sumTo,
} from "./shape.ts";

type NoAttributes = Record<string, never>;

// --- one operand ---

/** `derivative` gives f'(x) as a value, from the node f(x). */
function unary(
  name: string,
  onnxType: string,
  semantics: string,
  compute: (x: number) => number,
  derivative: (value: Value) => Value | undefined,
): { operation: Operation<NoAttributes>; build: (x: Value) => Value } {
  const scale = (value: Value, by: Value) => {
    const slope = derivative(value);
    return slope && multiply(by, slope);
  };
  const operation: Operation<NoAttributes> = {
    name,
    semantics,
    infer: ([x]) => {
      expectInputs(x.dtype === "float32", name, "float32", [x]);
      return { shape: x.shape, dtype: x.dtype };
    },
    evaluate: ([x]) => x.data.map(compute),
    vjp: (value, cotangent) => [scale(value, cotangent)],
    jvp: (value, [tangent]) => tangent && scale(value, tangent),
    onnx: (builder, inputs) => builder.node(onnxType, inputs),
    // PyTorch has the names of ONNX, in small letters.
    pytorch: ([x]) => `torch.${onnxType.toLowerCase()}(${x})`,
    couple: coupleUnary,
  };
  return { operation, build: (x) => apply(operation, [x], {}) };
}

const negateEntry = unary(
  "negate",
  "Neg",
  "-x",
  (x) => -x,
  (y) => full(y.shape, -1),
);
const expEntry = unary("exp", "Exp", "e^x", Math.exp, (y) => y);
const logEntry = unary("log", "Log", "natural logarithm", Math.log, (y) => reciprocal(y.inputs[0]));
const sqrtEntry = unary("sqrt", "Sqrt", "square root", Math.sqrt, (y) =>
  multiply(reciprocal(y), scalar(0.5)),
);
const reciprocalEntry = unary(
  "reciprocal",
  "Reciprocal",
  "1/x",
  (x) => 1 / x,
  (y) => negate(multiply(y, y)),
);
const tanhEntry = unary("tanh", "Tanh", "hyperbolic tangent", Math.tanh, (y) =>
  subtract(scalar(1), multiply(y, y)),
);
const sigmoidEntry = unary(
  "sigmoid",
  "Sigmoid",
  "1 / (1 + e^-x)",
  (x) => 1 / (1 + Math.exp(-x)),
  (y) => multiply(y, subtract(scalar(1), y)),
);
const erfEntry = unary("erf", "Erf", "Gauss error function", erfReference, ({ inputs: [x] }) =>
  multiply(exp(negate(multiply(x, x))), scalar(2 / Math.sqrt(Math.PI))),
);
const absEntry = unary("abs", "Abs", "|x|", Math.abs, ({ inputs: [x] }) => sign(x));
const signEntry = unary("sign", "Sign", "-1, 0 or 1", Math.sign, () => undefined);

export const negate = negateEntry.build;
export const exp = expEntry.build;
export const log = logEntry.build;
export const sqrt = sqrtEntry.build;
export const reciprocal = reciprocalEntry.build;
export const tanh = tanhEntry.build;
export const sigmoid = sigmoidEntry.build;
export const erf = erfEntry.build;
export const abs = absEntry.build;
export const sign = signEntry.build;

/** erf in float64: its Maclaurin series below 3, its continued fraction above. */
function erfReference(x: number): number {
  const magnitude = Math.abs(x);
  if (magnitude < 3) {
    let term = magnitude;
    let total = magnitude;
    for (let n = 1; n < 100; n++) {
      term *= -(magnitude * magnitude) / n;
      total += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = magnitude;
  for (let n = 60; n > 0; n--) fraction = magnitude + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-magnitude * magnitude) / (Math.sqrt(Math.PI) * fraction));
}

export const reluOperation: Operation<NoAttributes> = {
  name: "relu",
  semantics: "max(x, 0); derivative 0 at 0",
  infer: ([x]) => {
    expectInputs(x.dtype === "float32", "relu", "float32", [x]);
    return { shape: x.shape, dtype: x.dtype };
  },
  evaluate: ([x]) => x.data.map((element) => Math.max(element, 0)),
  vjp: (value, cotangent) => [reluGradient(cotangent, value)],
  jvp: (value, [tangent]) => tangent && reluGradient(tangent, value),
  onnx: (builder, inputs) => builder.node("Relu", inputs),
  pytorch: ([x]) => `F.relu(${x})`,
  // Where a residual branch is gone, the activations before and after it meet.
  simplify: ({ inputs: [x] }) => (x.operation === reluOperation ? x : undefined),
  couple: coupleUnary,
};

export function relu(x: Value): Value {
  return apply(reluOperation, [x], {});
}

// The slope at which HardSigmoid becomes a step: every positive normal float32 (>= 1.18e-38) times
// it exceeds 1.
const STEP_SLOPE = 3e38;

export const reluGradientOperation: Operation<NoAttributes> = {
  name: "reluGradient",
  semantics: "x where the second input is positive, else 0; linear in x, constant in the second",
  infer: ([x, gate]) => {
    expectInputs(
      sameShape(x.shape, gate.shape) && x.dtype === "float32" && gate.dtype === "float32",
      "reluGradient",
      "float32 of equal shapes",
      [x, gate],
    );
    return { shape: x.shape, dtype: x.dtype };
  },
  evaluate: ([x, gate]) => x.data.map((element, i) => (gate.data[i] > 0 ? element : 0)),
  vjp: (value, cotangent) => [reluGradient(cotangent, value.inputs[1]), undefined],
  jvp: (value, [tangent]) => tangent && reluGradient(tangent, value.inputs[1]),
  // HardSigmoid is one vectorised pass; Greater and Where took 3 times as long.
  onnx: (builder, [x, gate]) =>
    builder.node("Mul", [x, builder.node("HardSigmoid", [gate], { alpha: STEP_SLOPE, beta: 0 })]),
};

/** `x` where `gate` > 0, else 0. */
export function reluGradient(x: Value, gate: Value): Value {
  return apply(reluGradientOperation, [x, gate], {});
}

interface ClipAttributes {
  readonly low: number;
  readonly high: number;
}

const clipOperation: Operation<ClipAttributes> = {
  name: "clip",
  semantics: "min(max(x, low), high); derivative 0 at both and beyond",
  infer: ([x], { low, high }) => {
    expectInputs(x.dtype === "float32", "clip", "float32", [x]);
    expectInputs(low < high, "clip", `a low bound below the high one, not ${low} and ${high}`, [x]);
    return { shape: x.shape, dtype: x.dtype };
  },
  evaluate: ([x], { attributes: { low, high } }) =>
    x.data.map((element) => Math.min(Math.max(element, low), high)),
  vjp: (value, cotangent) => [reluGradient(cotangent, clipGate(value))],
  jvp: (value, [tangent]) => tangent && reluGradient(tangent, clipGate(value)),
  onnx: (builder, [x], { attributes: { low, high } }) =>
    builder.node("Clip", [x, builder.scalar(low), builder.scalar(high)]),
  pytorch: ([x], { attributes: { low, high } }) =>
    `${x}.clamp(${pythonNumber(low, "float32")}, ${pythonNumber(high, "float32")})`,
  couple: coupleUnary,
};

/** Positive exactly where a clipped value lies between its bounds. */
function clipGate(y: Value<ClipAttributes>): Value {
  const { low, high } = y.attributes;
  return minimum(subtract(y, scalar(low)), subtract(scalar(high), y));
}

/** `x` between two numbers, such as ReLU6's 0 and 6. */
export function clip(x: Value, low: number, high: number): Value {
  // Elements that are clipped equal the bounds, also in float32.
  return apply(clipOperation, [x], { low: Math.fround(low), high: Math.fround(high) });
}

const geluOperation: Operation<NoAttributes> = {
  name: "gelu",
  semantics: "x Φ(x), with the exact normal distribution function",
  infer: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  evaluate: ([x]) => x.data.map((v) => 0.5 * v * (1 + erfReference(v * Math.SQRT1_2))),
  vjp: ({ inputs: [x] }, cotangent) => [multiply(cotangent, geluSlope(x))],
  jvp: ({ inputs: [x] }, [tangent]) => tangent && multiply(tangent, geluSlope(x)),
  onnx: (builder, inputs) => builder.node("Gelu", inputs),
  pytorch: ([x]) => `F.gelu(${x})`,
  couple: coupleUnary,
};

/** Φ(x) + x φ(x) = ½ + ½ erf(t) + t e^(-t²) / √π with t = x / √2. */
function geluSlope(x: Value): Value {
  const t = multiply(x, scalar(Math.SQRT1_2));
  const density = exp(subtract(scalar(-Math.log(Math.PI) / 2), multiply(t, t)));
  const distribution = add(multiply(erf(t), scalar(0.5)), scalar(0.5));
  return add(distribution, multiply(t, density));
}

export function gelu(x: Value): Value {
  return apply(geluOperation, [x], {});
}

// --- two operands ---

/** The shape that two shapes broadcast to, or undefined. */
function broadcastShape(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const result: number[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const m = a[axis - rank + a.length] ?? 1;
    const n = b[axis - rank + b.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) return undefined;
    result.push(m === 1 ? n : m);
  }
  return result;
}

interface BinaryRules {
  readonly semantics: string;
  readonly onnxType: string;
  /** Python's; for operations without one PyTorch has a function of the same name. */
  readonly operator?: string;
  /** The only type that operands may have; default: all. */
  readonly operands?: DType;
  /** Of the result; default: that of the operands. */
  readonly dtype?: DType;
  compute(a: number, b: number): number;
  /** Derivatives with respect to a and b, times `by`; undefined: zero. */
  derivatives?(value: Value, by: Value): readonly [Value | undefined, Value | undefined];
  simplify?(a: Value, b: Value, shape: Shape): Value | undefined;
  sampleNorms?: Operation["sampleNorms"];
  rowAxis?: Operation["rowAxis"];
  affine?: Operation["affine"];
  /** What the operation makes of the channels of its operands; default "unite". */
  readonly coupling?: "unite" | "add";
}

function binary(name: string, rules: BinaryRules) {
  const operation: Operation<NoAttributes> = {
    name,
    semantics: rules.semantics,
    infer: ([a, b]) => {
      const shape = broadcastShape(a.shape, b.shape);
      expectInputs(
        shape !== undefined &&
          a.dtype === b.dtype &&
          (rules.operands === undefined || a.dtype === rules.operands),
        name,
        `two shapes that broadcast, ${rules.operands ? `both ${rules.operands}` : "of one type"}`,
        [a, b],
      );
      return { shape, dtype: rules.dtype ?? a.dtype };
    },
    evaluate: ([a, b], { shape }) => {
      const result = new Float64Array(sizeOf(shape));
      const strides = [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)];
      forEachOffset(shape, strides, (flat, [i, j]) => {
        result[flat] = rules.compute(a.data[i], b.data[j]);
      });
      return result;
    },
    vjp: (value, cotangent) =>
      rules
        .derivatives?.(value, cotangent)
        .map((part, i) => part && sumTo(part, value.inputs[i].shape)) ?? [],
    jvp: (value, tangents) => {
      const parts = tangents.map(
        (tangent, i) => tangent && rules.derivatives?.(value, broadcastTo(tangent, value.shape))[i],
      );
      const [a, b] = parts;
      return a && b ? add(a, b) : (a ?? b);
    },
    onnx: (builder, inputs) => builder.node(rules.onnxType, inputs),
    pytorch: (names, { inputs }) => {
      if (rules.operator === undefined) return `torch.${name}(${names.join(", ")})`;
      const isNumber = (x: Value) => isConstant(x) && x.shape.length === 0;
      const operands = names.map((operand, i) =>
        isNumber(inputs[i]) && !inputs.every(isNumber)
          ? pythonNumber(inputs[i].attributes.data[0], inputs[i].dtype)
          : operand,
      );
      return operands.join(` ${rules.operator} `);
    },
    simplify: (value) => rules.simplify?.(value.inputs[0], value.inputs[1], value.shape),
    sampleNorms: rules.sampleNorms,
    rowAxis: rules.rowAxis,
    affine: rules.affine,
    couple: coupleElementwise(rules.coupling ?? "unite"),
  };
  return { operation, build: (a: Value, b: Value) => apply(operation, [a, b], {}) };
}

/** The number that every element of `value` is, if that can be seen. */
export function constantElement(value: Value): number | undefined {
  if (value.operation === broadcastOperation) return constantElement(value.inputs[0]);
  if (!isConstant(value) || value.dtype !== "float32") return undefined;
  const [first, ...others] = value.attributes.data as Float32Array;
  return others.every((element) => element === first) ? first : undefined;
}

const addEntry = binary("add", {
  semantics: "a + b",
  onnxType: "Add",
  operator: "+",
  coupling: "add",
  compute: (a, b) => a + b,
  derivatives: (_value, by) => [by, by],
  simplify: (a, b, shape) => {
    if (constantElement(b) === 0) return broadcastTo(a, shape);
    return constantElement(a) === 0 ? broadcastTo(b, shape) : undefined;
  },
  rowAxis: broadcastRowAxis,
  affine: ({ shape, inputs }, input) => sameShape(inputs[input].shape, shape),
  // A bias: the per-sample gradient is the cotangent, summed where the bias was repeated.
  sampleNorms: ({ shape, inputs }, cotangent, input) => {
    const bias = inputs[input];
    const lead = shape.length - bias.shape.length;
    const repeated = shape.flatMap((n, axis) =>
      axis > 0 && (axis < lead || bias.shape[axis - lead] !== n) ? [axis] : [],
    );
    return square(reshape(sum(cotangent, repeated), [shape[0], sizeOf(bias.shape)]));
  },
});
const subtractEntry = binary("subtract", {
  semantics: "a - b",
  onnxType: "Sub",
  operator: "-",
  compute: (a, b) => a - b,
  derivatives: (_value, by) => [by, negate(by)],
  simplify: (a, b, shape) => (constantElement(b) === 0 ? broadcastTo(a, shape) : undefined),
});
const multiplyEntry = binary("multiply", {
  semantics: "a · b",
  onnxType: "Mul",
  operator: "*",
  compute: (a, b) => a * b,
  derivatives: ({ inputs: [a, b] }, by) => [multiply(by, b), multiply(by, a)],
  simplify: (a, b, shape) => {
    const [x, y] = [constantElement(a), constantElement(b)];
    if (x === 0 || y === 0) return full(shape, 0);
    if (y === 1) return broadcastTo(a, shape);
    if (x === 1) return broadcastTo(b, shape);
    if (y === -1 && sameShape(a.shape, shape)) return negate(a);
    // (a · c) · d with numbers c and d: one multiplication.
    if (y !== undefined && a.operation === multiplyEntry.operation) {
      const inner = constantElement(a.inputs[1]);
      if (inner !== undefined) return multiply(broadcastTo(a.inputs[0], shape), scalar(inner * y));
    }
    return undefined;
  },
});
const divideEntry = binary("divide", {
  semantics: "a / b",
  // Runtimes differ in what they make of quotients of integers.
  operands: "float32",
  onnxType: "Div",
  operator: "/",
  compute: (a, b) => a / b,
  derivatives: (value, by) => {
    const [, b] = value.inputs;
    const quotient = divide(by, b);
    return [quotient, negate(multiply(quotient, value))];
  },
  simplify: (a, b, shape) => (constantElement(b) === 1 ? broadcastTo(a, shape) : undefined),
});
const maximumEntry = binary("maximum", {
  semantics: "the larger; where equal, the derivative goes to b",
  onnxType: "Max",
  compute: Math.max,
  derivatives: ({ inputs: [a, b] }, by) => selectDerivatives(greater(a, b), by),
});
const minimumEntry = binary("minimum", {
  semantics: "the smaller; where equal, the derivative goes to b",
  onnxType: "Min",
  compute: Math.min,
  derivatives: ({ inputs: [a, b] }, by) => selectDerivatives(greater(b, a), by),
});
const greaterEntry = binary("greater", {
  semantics: "whether a > b",
  onnxType: "Greater",
  operator: ">",
  dtype: "bool",
  compute: (a, b) => (a > b ? 1 : 0),
});
const equalEntry = binary("equal", {
  semantics: "whether a = b",
  onnxType: "Equal",
  operator: "==",
  dtype: "bool",
  compute: (a, b) => (a === b ? 1 : 0),
});

function selectDerivatives(first: Value, by: Value): [Value, Value] {
  const zero = full(by.shape, 0);
  return [where(first, by, zero), where(first, zero, by)];
}

export const add = addEntry.build;
export const subtract = subtractEntry.build;
export const multiply = multiplyEntry.build;
export const divide = divideEntry.build;
export const maximum = maximumEntry.build;
export const minimum = minimumEntry.build;
export const greater = greaterEntry.build;
export const equal = equalEntry.build;

/** x². */
export function square(x: Value): Value {
  return multiply(x, x);
}

const whereOperation: Operation<NoAttributes> = {
  name: "where",
  semantics: "a where the condition holds, else b; all of one shape",
  infer: ([condition, a, b]) => {
    expectInputs(
      condition.dtype === "bool" &&
        sameShape(condition.shape, a.shape) &&
        sameShape(a.shape, b.shape) &&
        a.dtype === b.dtype &&
        // Neither ONNX Runtime nor TensorFlow.js on WebAssembly chooses between booleans.
        a.dtype !== "bool",
      "where",
      "a bool and two values of its shape, both float32 or both int64",
      [condition, a, b],
    );
    return { shape: a.shape, dtype: a.dtype };
  },
  evaluate: ([condition, a, b]) => a.data.map((x, i) => (condition.data[i] ? x : b.data[i])),
  vjp: ({ inputs: [condition] }, cotangent) => {
    const zero = full(cotangent.shape, 0);
    return [undefined, where(condition, cotangent, zero), where(condition, zero, cotangent)];
  },
  jvp: (value, [, a, b]) => {
    if (!a && !b) return undefined;
    const zero = full(value.shape, 0);
    return where(value.inputs[0], a ?? zero, b ?? zero);
  },
  onnx: (builder, inputs) => builder.node("Where", inputs),
  pytorch: ([condition, a, b]) => `torch.where(${condition}, ${a}, ${b})`,
  couple: coupleElementwise("unite"),
};

export function where(condition: Value, a: Value, b: Value): Value {
  return apply(whereOperation, [condition, a, b], {});
}

// ONNX's numbers for element types (onnx.proto3, TensorProto.DataType).
const onnxTypes: Record<DType, number> = { float32: 1, int64: 7, bool: 9 };

const castOperation: Operation<{ to: DType }> = {
  name: "cast",
  semantics: "another type; booleans become 0 and 1, all but 0 true, floats are truncated",
  infer: ([x], { to }) => ({ shape: x.shape, dtype: to }),
  evaluate: ([x], { attributes: { to } }) =>
    to === "bool"
      ? x.data.map((v) => (v === 0 ? 0 : 1))
      : to === "int64"
        ? x.data.map(Math.trunc)
        : x.data,
  onnx: (builder, inputs, { attributes: { to } }) =>
    builder.node("Cast", inputs, { to: onnxTypes[to] }),
  pytorch: ([x], { attributes: { to } }) => `${x}.to(${pytorchType(to)})`,
  couple: coupleUnary,
};

export function cast(x: Value, to: DType): Value {
  return x.dtype === to ? x : apply(castOperation, [x], { to });
}

export const elementwiseOperations: readonly Operation[] = [
  ...[negateEntry, expEntry, logEntry, sqrtEntry, reciprocalEntry, tanhEntry, sigmoidEntry],
  ...[erfEntry, absEntry, signEntry],
  ...[addEntry, subtractEntry, multiplyEntry, divideEntry, maximumEntry, minimumEntry],
  ...[greaterEntry, equalEntry],
]
  .map(({ operation }): Operation => operation)
  .concat([reluOperation, reluGradientOperation, clipOperation, geluOperation])
  .concat([whereOperation, castOperation]);
