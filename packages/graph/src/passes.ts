/** @file Passes over graphs: substitution, simplification, splitting in stages, verification. */
import { EspalierError } from "@espalier/base";
import { bytesOf } from "./cost.ts";
import { constantElement } from "./ops/elementwise.ts";
import { constant, input, integers, isConstant, isInput } from "./ops/leaf.ts";
import { full } from "./ops/shape.ts";
import { apply, type NdArray, sameShape, sizeOf, topologicalOrder, type Value } from "./value.ts";

/** Rebuilds `outputs`, giving `replace` each value with its inputs already rebuilt. */
export function rewrite(
  outputs: readonly Value[],
  replace: (rebuilt: Value, original: Value) => Value,
): Value[] {
  const done = new Map<Value, Value>();
  for (const value of topologicalOrder(outputs)) {
    const inputs = value.inputs.map((operand) => done.get(operand)!);
    const unchanged = inputs.every((operand, i) => operand === value.inputs[i]);
    const rebuilt = unchanged ? value : apply(value.operation, inputs, value.attributes);
    done.set(value, replace(rebuilt, value));
  }
  return outputs.map((output) => done.get(output)!);
}

/** `outputs` with some values exchanged for others of the same shape. */
export function substitute(
  outputs: readonly Value[],
  replacements: ReadonlyMap<Value, Value>,
): Value[] {
  for (const [from, to] of replacements) {
    if (!sameShape(from.shape, to.shape) || from.dtype !== to.dtype) {
      throw new EspalierError(
        "invalid-graph",
        `substitute: expected ${from.dtype}[${from.shape}], got ${to.dtype}[${to.shape}]`,
      );
    }
  }
  return rewrite(outputs, (rebuilt, original) => replacements.get(original) ?? rebuilt);
}

// Results larger than this are left to the executor, which folds its own initializers.
const FOLDED_ELEMENTS = 4096;

function fold(value: Value): Value | undefined {
  if (value.inputs.length === 0 || sizeOf(value.shape) > FOLDED_ELEMENTS) return undefined;
  if (value.dtype === "bool" || !value.inputs.every(isConstant)) return undefined;
  if (value.inputs.some((operand) => sizeOf(operand.shape) > FOLDED_ELEMENTS)) return undefined;
  const operands: NdArray[] = value.inputs.map((operand) => ({
    shape: operand.shape,
    data: operand.operation.evaluate([], operand),
  }));
  const result = value.operation.evaluate(operands, value);
  return value.dtype === "int64"
    ? integers(value.shape, result)
    : constant(value.shape, Float32Array.from(result));
}

function vanish({ operation, inputs, shape, dtype }: Value): Value | undefined {
  if (operation.multilinear === undefined || dtype !== "float32") return undefined;
  return inputs.some((operand) => constantElement(operand) === 0) ? full(shape, 0) : undefined;
}

/** @param inputs Those of the value, or what counts as equal to them. */
function keyOf(value: Value, inputs: readonly Value[] = value.inputs): string {
  const { operation, attributes } = value;
  // An input is itself alone, whatever its name.
  if (isInput(value)) return `input#${value.id}`;
  const own = operation.key?.(attributes) ?? JSON.stringify(attributes);
  return `${operation.name}(${inputs.map(({ id }) => id)})${own}`;
}

/**
 * The same results from fewer nodes: equal nodes merged, constants folded, and each operation's own
 * simplifications applied until none fits. What no output needs disappears by itself.
 */
export function simplify(outputs: readonly Value[]): Value[] {
  const known = new Map<string, Value>();
  const improve = (value: Value): Value => {
    const key = keyOf(value);
    const earlier = known.get(key);
    if (earlier !== undefined) return earlier;
    const simpler = vanish(value) ?? fold(value) ?? value.operation.simplify?.(value);
    const result = simpler === undefined ? value : improveAll(simpler);
    known.set(key, result);
    return result;
  };
  // A simplification may have built several new nodes.
  const improveAll = (value: Value): Value => {
    if (known.get(keyOf(value)) === value) return value;
    const inputs = value.inputs.map(improveAll);
    const unchanged = inputs.every((operand, i) => operand === value.inputs[i]);
    return improve(unchanged ? value : apply(value.operation, inputs, value.attributes));
  };
  const result = rewrite(outputs, improve);
  verify(result);
  return result;
}

/**
 * The values of `others` that compute what some value of `outputs` computes, in the same way.
 *
 * @param alike Inputs of `others`, and those of `outputs` that they equal; other inputs equal none.
 */
export function findCommon(
  outputs: readonly Value[],
  others: readonly Value[],
  alike: ReadonlyMap<Value, Value>,
): Set<Value> {
  const known = new Map<string, Value>();
  const equals = new Map(alike);
  const enter = (value: Value): Value => {
    const inputs = value.inputs.map((operand) => equals.get(operand) ?? operand);
    const key = keyOf(value, inputs);
    const equal = known.get(key) ?? value;
    known.set(key, equal);
    return equal;
  };
  for (const value of topologicalOrder(outputs)) equals.set(value, enter(value));
  const own = new Set(known.values());
  const common = new Set<Value>();
  for (const value of topologicalOrder(others)) {
    const equal = alike.get(value) ?? enter(value);
    equals.set(value, equal);
    if (own.has(equal)) common.add(value);
  }
  return common;
}

/** The same results from operations that every executor has, for executors that lack some. */
export function makePortable(outputs: readonly Value[]): Value[] {
  return rewrite(outputs, (value) => value.operation.portable?.(value) ?? value);
}

export interface Stages {
  /** Values of the first stage that the second needs. Independent of the varying inputs. */
  readonly carried: readonly Value[];
  /** Inputs of the second stage, one for each of `carried`, called `carried.0`, `carried.1`, …. */
  readonly carriedInputs: readonly Value[];
  /** The outputs, computed from the varying inputs, leaves, and `carriedInputs`. */
  readonly outputs: readonly Value[];
}

/**
 * Splits a computation that will run many times with changing values of `varying`: what does not
 * depend on them is computed once and carried over.
 */
export function splitStages(outputs: readonly Value[], varying: readonly Value[]): Stages {
  const varies = new Set(varying);
  const carried = new Set<Value>();
  for (const value of topologicalOrder(outputs)) {
    if (value.inputs.some((operand) => varies.has(operand))) varies.add(value);
    if (!varies.has(value)) continue;
    for (const operand of value.inputs) {
      if (!varies.has(operand) && operand.inputs.length > 0) carried.add(operand);
    }
  }
  const replacements = new Map(
    [...carried].map((value, i) => [value, input(`carried.${i}`, value.shape, value.dtype)]),
  );
  return {
    carried: [...carried],
    carriedInputs: [...replacements.values()],
    outputs: substitute(outputs, replacements),
  };
}

/** One part of a computation that `splitSequence` has cut up. */
export interface Part {
  /** What it takes from the parts before: values of the whole, and the inputs that stand for them. */
  readonly held: ReadonlyMap<Value, Value>;
  /** What was asked for, computed from leaves and `held`. */
  readonly outputs: readonly Value[];
  /** Values of the whole that the next part holds, computed likewise. */
  readonly kept: ReadonlyMap<Value, Value>;
}

/**
 * Cuts a computation into parts that run one after the other, each computing the next of `steps`
 * from what the parts before have computed. Inputs called `held.0`, `held.1`, … stand for that.
 *
 * @param mostBytes What may be held between parts. Where it would be more, a part begins further
 *   back and computes some values again.
 * @param parameters Inputs that may change between parts: what is computed of them alone is not held.
 */
export function splitSequence(
  steps: readonly (readonly Value[])[],
  mostBytes: number = Number.POSITIVE_INFINITY,
  parameters: Iterable<Value> = [],
): Part[] {
  const everything = topologicalOrder(steps.flat());
  const varies = new Set<Value>();
  const fixed = new Set(parameters);
  for (const value of everything) {
    const { inputs } = value;
    if (isInput(value) ? !fixed.has(value) : inputs.some((operand) => varies.has(operand))) {
      varies.add(value);
    }
  }
  const lastStep = new Map<Value, number>();
  steps.forEach((step, i) => {
    for (const value of step) lastStep.set(value, i);
  });
  let held = new Map<Value, Value>();
  const done = new Set<Value>();
  return steps.map((step, i) => {
    for (const value of topologicalOrder(step)) done.add(value);
    const needed = new Set(
      everything.filter((value) => !done.has(value)).flatMap(({ inputs }) => inputs),
    );
    const border = [...done].filter(
      (value) =>
        value.inputs.length > 0 &&
        varies.has(value) &&
        (needed.has(value) || lastStep.get(value)! > i),
    );
    const fits = border.reduce((bytes, value) => bytes + bytesOf(value), 0) <= mostBytes;
    const keep = fits ? border : [...held.keys()];
    const outputs = substitute([...step, ...keep], held);
    const part = {
      held,
      outputs: outputs.slice(0, step.length),
      kept: new Map(keep.map((value, k) => [value, outputs[step.length + k]])),
    };
    held = new Map(keep.map((value, k) => [value, input(`held.${k}`, value.shape, value.dtype)]));
    return part;
  });
}

/**
 * Checks what every pass must preserve: inputs before their users, shapes and types as the
 * operations infer them, input names unique.
 *
 * @throws EspalierError `invalid-graph` naming the first node that is wrong.
 */
export function verify(outputs: readonly Value[]): void {
  const names = new Map<string, Value>();
  for (const value of topologicalOrder(outputs)) {
    const { operation, inputs, attributes, shape, dtype } = value;
    const fail = (what: string): never => {
      throw new EspalierError("invalid-graph", `${operation.name} (node ${value.id}): ${what}`);
    };
    if (inputs.some((operand) => operand.id >= value.id)) fail("uses a value created after it");
    const inferred = operation.infer(inputs, attributes);
    if (!sameShape(inferred.shape, shape) || inferred.dtype !== dtype) {
      fail(`expected ${inferred.dtype}[${inferred.shape}], got ${dtype}[${shape}]`);
    }
    if (!shape.every((n) => Number.isInteger(n) && n > 0)) fail(`has the shape [${shape}]`);
    if (!isInput(value)) continue;
    const { name } = value.attributes;
    if (names.has(name)) fail(`two inputs are called ${name}`);
    names.set(name, value);
  }
}
