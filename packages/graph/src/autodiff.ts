/** @file Derivatives of graphs as graphs: reverse mode, forward mode, and any nesting of the two. */
import { EspalierError } from "@espalier/base";
import { add, multiply } from "./ops/elementwise.ts";
import { full, reshape, sum } from "./ops/shape.ts";
import { rewrite } from "./passes.ts";
import { sameShape, topologicalOrder, type Value } from "./value.ts";

/** The values among those `outputs` need that depend on one of `sources`, in topological order. */
function dependents(
  outputs: Iterable<Value>,
  sources: Iterable<Value>,
  boundary?: ReadonlySet<Value>,
): Value[] {
  const depends = new Set(sources);
  return topologicalOrder(outputs, boundary).filter((value) => {
    if (!boundary?.has(value) && value.inputs.some((operand) => depends.has(operand))) {
      depends.add(value);
    }
    return depends.has(value);
  });
}

function checkSeed(name: string, value: Value, seed: Value): void {
  if (sameShape(value.shape, seed.shape)) return;
  throw new EspalierError(
    "invalid-graph",
    `${name}: expected a seed of shape [${value.shape}], got [${seed.shape}]`,
  );
}

/** The decomposition of `value`, for operations that give no derivative of their own. */
function decomposition(value: Value): Value | undefined {
  return value.operation.decompose?.(value);
}

/** Runs the reverse sweep and returns the cotangent of every value that depends on `sources`. */
function reverseSweep(
  outputs: readonly Value[],
  cotangents: readonly Value[],
  sources: Iterable<Value>,
  boundary?: ReadonlySet<Value>,
): Map<Value, Value> {
  const accumulated = new Map<Value, Value>();
  const accumulate = (value: Value, cotangent: Value) => {
    const before = accumulated.get(value);
    accumulated.set(value, before === undefined ? cotangent : add(before, cotangent));
  };
  outputs.forEach((output, i) => {
    checkSeed("vjp", output, cotangents[i]);
    accumulate(output, cotangents[i]);
  });
  const active = dependents(outputs, sources, boundary);
  const isActive = new Set(active);
  for (const value of active.reverse()) {
    const cotangent = accumulated.get(value);
    if (cotangent === undefined || boundary?.has(value)) continue;
    const { operation, inputs } = value;
    if (inputs.length === 0) continue;
    if (operation.vjp !== undefined) {
      operation.vjp(value, cotangent).forEach((part, i) => {
        if (part !== undefined && isActive.has(inputs[i])) accumulate(inputs[i], part);
      });
      continue;
    }
    const composite = decomposition(value);
    if (composite === undefined) continue;
    const leaves = [...new Set(inputs)].filter((operand) => isActive.has(operand));
    const inner = reverseSweep([composite], [cotangent], leaves, new Set(inputs));
    for (const leaf of leaves) {
      const part = inner.get(leaf);
      if (part !== undefined) accumulate(leaf, part);
    }
  }
  return accumulated;
}

/**
 * Reverse mode: the gradients of Σ ⟨outputs, cotangents⟩ with respect to `sources`, each of the
 * shape of its source (zeros where there is no dependence). `sources` need not be inputs.
 */
export function vjp(
  outputs: readonly Value[],
  cotangents: readonly Value[],
  sources: readonly Value[],
): Value[] {
  const gradients = reverseSweep(outputs, cotangents, sources);
  return sources.map((source) => gradients.get(source) ?? full(source.shape, 0));
}

/** The gradient of a scalar value with respect to each of `sources`. */
export function gradient(output: Value, sources: readonly Value[]): Value[] {
  return vjp([output], [full(output.shape, 1)], sources);
}

/**
 * Forward mode: the derivatives of `outputs` along the direction that gives each key of `tangents`
 * its value. Each has the shape of its output.
 */
export function jvp(outputs: readonly Value[], tangents: ReadonlyMap<Value, Value>): Value[] {
  for (const [value, tangent] of tangents) checkSeed("jvp", value, tangent);
  const known = forwardSweep(outputs, tangents);
  return outputs.map((output) => known.get(output) ?? full(output.shape, 0));
}

function forwardSweep(
  outputs: readonly Value[],
  tangents: ReadonlyMap<Value, Value>,
  boundary?: ReadonlySet<Value>,
): Map<Value, Value> {
  const known = new Map(tangents);
  for (const value of dependents(outputs, tangents.keys(), boundary)) {
    if (known.has(value)) continue;
    const { operation, inputs } = value;
    let tangent: Value | undefined;
    if (operation.jvp !== undefined) {
      tangent = operation.jvp(
        value,
        inputs.map((operand) => known.get(operand)),
      );
    } else {
      const composite = decomposition(value);
      if (composite !== undefined) {
        const leaves = inputs.flatMap((leaf) => {
          const leafTangent = known.get(leaf);
          return leafTangent === undefined ? [] : [[leaf, leafTangent] as const];
        });
        tangent = forwardSweep([composite], new Map(leaves), new Set(inputs)).get(composite);
      }
    }
    if (tangent !== undefined) known.set(value, tangent);
  }
  return known;
}

/**
 * Squared norms of per-sample gradients: for each parameter p of shape [rows, …] the values
 * ‖∂⟨output_n, cotangent_n⟩ / ∂p_r‖², shape [N, rows], where n counts the first axis of `outputs`.
 *
 * Each parameter must be used once, directly, by an operation that is linear in it and treats the
 * samples of its first axis alike (convolution, linear layer, bias).
 *
 * @throws EspalierError `invalid-graph` naming the operation where that does not hold.
 */
export function sampleGradientNorms(
  outputs: readonly Value[],
  cotangents: readonly Value[],
  parameters: readonly Value[],
): Value[] {
  const uses = findUses(outputs, parameters);
  const swept = reverseSweep(outputs, cotangents, parameters);
  return parameters.map((parameter) => {
    const { user, position } = uses.get(parameter)!;
    const cotangent = swept.get(user);
    if (user.operation.sampleNorms === undefined) {
      throw new EspalierError(
        "invalid-graph",
        `${user.operation.name}: per-sample gradients are not defined for its input ${position}`,
      );
    }
    const rows = parameter.shape[0];
    return cotangent === undefined
      ? full([user.shape[0], rows], 0)
      : user.operation.sampleNorms(user, cotangent, position);
  });
}

/**
 * The quadratic form of the Hessian of Σ `output` along `directions`, split by the rows of the
 * parameters: for each parameter p of shape [rows, …] the values v_r · (H v)_r, shape [rows], where
 * v holds the directions of all parameters. Over random signs, their mean is the trace of each
 * row's block (Hutchinson 1990).
 *
 * No product H v is formed: for an operation y = f(x, p) linear in p, v_r · ∂/∂p_r is the inner
 * product of the cotangent of y with f(x, v), and both are needed anyway.
 *
 * @throws EspalierError as `sampleGradientNorms`.
 */
export function hessianQuadraticForms(
  output: Value,
  parameters: readonly Value[],
  directions: readonly Value[],
): Value[] {
  return quadraticForms(output, parameters, directions, []);
}

/**
 * As `hessianQuadraticForms`, but with directions of its own for every sample of the first axis that
 * the operations on parameters share: those of sample n are `directions` with row r of a parameter
 * multiplied by its `signs` [N, rows] at (n, r). For each parameter the values v_nr · (H_n v_n)_r,
 * shape [N, rows], H_n being what sample n adds to the Hessian; `output` must be a sum over samples.
 *
 * With one v for all samples, a row's form holds its products with all other rows, which have mean
 * zero over random signs but are the same for samples that agree. Signs of their own make them
 * independent, so that they average out over samples as well. It is how Flipout (Wen et al. 2018,
 * arXiv 1803.04386) decorrelates perturbations of weights.
 *
 * @throws EspalierError as `sampleGradientNorms`.
 */
export function sampleQuadraticForms(
  output: Value,
  parameters: readonly Value[],
  directions: readonly Value[],
  signs: readonly Value[],
): Value[] {
  // f(x, p) + s · f(x, δ) at δ = 0: a step of δ is one of p whose rows have signs for every sample.
  const uses = findUses([output], parameters);
  const steps = parameters.map(({ shape }) => full(shape, 0));
  const stepsOf = new Map<Value, { i: number; position: number }[]>();
  for (const [i, parameter] of parameters.entries()) {
    const { user, position } = uses.get(parameter)!;
    stepsOf.set(user, [...(stepsOf.get(user) ?? []), { i, position }]);
  }
  const [moved] = rewrite([output], (rebuilt, original) =>
    (stepsOf.get(original) ?? []).reduce((result, { i, position }) => {
      const kept = rowAxisOf(rebuilt, position);
      const shape = rebuilt.shape.map((n, axis) => (axis === 0 || axis === kept ? n : 1));
      const along = alongParameter(rebuilt, position, steps[i]);
      return add(result, multiply(along, reshape(signs[i], shape)));
    }, rebuilt),
  );
  return quadraticForms(moved, steps, directions, [0]);
}

/** @param axes Of the results of operations on parameters: those that are not added up, but for rows. */
function quadraticForms(
  output: Value,
  parameters: readonly Value[],
  directions: readonly Value[],
  axes: readonly number[],
): Value[] {
  const uses = findUses([output], parameters);
  const users = parameters.map((parameter) => uses.get(parameter)!.user);
  const cotangents = vjp([output], [full(output.shape, 1)], users);
  const slopes = parameters.map((parameter, i) => {
    const { user, position } = uses.get(parameter)!;
    const along = alongParameter(user, position, directions[i]);
    const kept = [...axes, rowAxisOf(user, position)];
    const others = [...user.shape.keys()].filter((axis) => !kept.includes(axis));
    return sum(multiply(cotangents[i], along), others);
  });
  return jvp(slopes, new Map(parameters.map((parameter, i) => [parameter, directions[i]])));
}

function alongParameter(user: Value, position: number, direction: Value): Value {
  const tangents = user.inputs.map((_, k) => (k === position ? direction : undefined));
  return user.operation.jvp?.(user, tangents) ?? notLinear(user, position);
}

function rowAxisOf(user: Value, position: number): number {
  return user.operation.rowAxis?.(user, position) ?? notLinear(user, position);
}

function notLinear({ operation }: Value, position: number): never {
  throw new EspalierError(
    "invalid-graph",
    `${operation.name}: it is not linear in its input ${position} row by row`,
  );
}

/** The value that applies an operation to `parameter`, and at which position. */
export interface ParameterUse {
  readonly user: Value;
  readonly position: number;
}

/**
 * Where each of `parameters` is used.
 *
 * @throws EspalierError `invalid-graph` for a parameter that is not used exactly once.
 */
export function findUses(
  outputs: readonly Value[],
  parameters: readonly Value[],
): Map<Value, ParameterUse> {
  const wanted = new Set(parameters);
  const uses = new Map<Value, ParameterUse>();
  for (const user of topologicalOrder(outputs)) {
    user.inputs.forEach((operand, position) => {
      if (!wanted.has(operand)) return;
      if (uses.has(operand)) {
        throw new EspalierError(
          "invalid-graph",
          `expected each parameter to be used once, but one of shape [${operand.shape}] is used by ${uses.get(operand)!.user.operation.name} and ${user.operation.name}`,
        );
      }
      uses.set(operand, { user, position });
    });
  }
  for (const parameter of parameters) {
    if (uses.has(parameter)) continue;
    throw new EspalierError(
      "invalid-graph",
      `expected each parameter to be used, but one of shape [${parameter.shape}] is not`,
    );
  }
  return uses;
}
