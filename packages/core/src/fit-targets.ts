/** @file Which weights are fitted anew after pruning, and to what. */
import {
  add,
  concat,
  divide,
  findCommon,
  findUses,
  full,
  gather,
  multiply,
  reshape,
  sameShape,
  scalar,
  sizeOf,
  square,
  substitute,
  topologicalOrder,
  transpose,
  type Value,
  vjp,
} from "@espalier/graph";
import type { Model, ModelGraph, Parameter } from "./model.ts";

/** A weight, and what its rows are to make at every position. */
export interface FitTarget {
  readonly name: string;
  /** In the pruned graph: see `Operation.regressors`. None where nothing is left to read. */
  readonly regressors: Value | undefined;
  /** In the dense graph: [N, rows, positions]. */
  readonly wanted: Value;
  /** The sum that `wanted` is of, if it is not of the rows themselves. */
  readonly sum: OpenSum | undefined;
}

/** A sum that rows go into, in the pruned graph: [N, rows, positions] each. */
export interface OpenSum {
  /** What it is without the layer of these rows. */
  readonly rest: Value;
  /** By how much it grows with what a row makes. */
  readonly slope: Value;
}

/**
 * The weights of the pruned model that are to be fitted anew, in the order in which values pass through
 * them, each to what the same channels were in the dense one.
 *
 * Of a layer that ends a branch, what comes of *adding* it is to be as it was: so it makes up for what
 * the other branches have lost, too (He et al. 2017, arXiv 1707.06168, section 3.3). That is, if they are
 * not fitted after it.
 */
export function findTargets(
  denseModel: Model,
  prunedModel: Model,
  dense: ModelGraph,
  pruned: ModelGraph,
): FitTarget[] {
  const changes = changedWeights(denseModel, prunedModel, dense, pruned);
  const [layers, prunedLayers] = [layersOf(dense), layersOf(pruned)];
  const [sums, prunedSums] = [new Sums(dense, []), new Sums(pruned, changes)];
  return changes.flatMap(({ name, user, regressors }, step) => {
    const { layer, channels } = pruned.fittable.get(name)!;
    const parts = layers.get(layer);
    if (parts === undefined) return [];
    const own = prunedLayers.get(layer) ?? [];
    const sum = regressors && prunedSums.find(user, own, step);
    const former = parts.map((part) => sum && sums.find(part.user, parts, step));
    const isOpen = sum !== undefined && !former.includes(undefined);
    const rows = parts.map((part, i) =>
      rowsOf(part, isOpen ? pullBack(former[i]!, part.user).value : part.user),
    );
    const held = parts.flatMap((part) => part.channels);
    return {
      name,
      regressors,
      wanted: gather(
        concat(rows, 1),
        channels.map((channel) => held.indexOf(channel)),
        1,
      ),
      sum: isOpen ? openSum(sum, own.find((part) => part.user === user)!, own) : undefined,
    };
  });
}

/**
 * Weights of `pruned` that make something of values that `dense` does not compute, or rows that another
 * weight made before, or that have lost all they read: in the order in which values pass through them.
 * A sum that lacks a whole branch is such a value, although no parameter of it has changed.
 */
function changedWeights(
  denseModel: Model,
  prunedModel: Model,
  dense: ModelGraph,
  pruned: ModelGraph,
) {
  const alike = new Map<Value, Value>();
  for (const [name, value] of Object.entries(pruned.inputs)) alike.set(value, dense.inputs[name]);
  for (const [name, value] of pruned.parameters) {
    const before = dense.parameters.get(name);
    const same = isSame(denseModel.parameters.get(name), prunedModel.parameters.get(name)!);
    if (before !== undefined && same) alike.set(value, before);
  }
  const unchanged = findCommon([dense.logits], [pruned.logits], alike);
  const found: { name: string; user: Value; regressors: Value | undefined }[] = [];
  for (const { name, user, position } of usesOf(pruned)) {
    const before = new Set(dense.fittable.get(name)?.channels);
    const made = pruned.fittable.get(name)!.channels;
    const reads = user.inputs.some((operand, i) => i !== position && !unchanged.has(operand));
    const regressors = user.operation.regressors?.(user, position);
    if (regressors === undefined) continue;
    if (reads || made.some((channel) => !before.has(channel))) {
      found.push({ name, user, regressors });
    }
  }
  for (const [name, { shift }] of pruned.fittable) {
    if (pruned.parameters.has(name) || !dense.parameters.has(name) || shift === undefined) continue;
    const constant = pruned.parameters.get(shift.parameter)!;
    const { user } = findUses([pruned.logits], [constant]).get(constant)!;
    found.push({ name, user, regressors: undefined });
  }
  return found.sort((a, b) => a.user.id - b.user.id);
}

/** Where each fittable weight is used; those of layers before one without channels are not. */
function usesOf({ fittable, parameters, logits }: ModelGraph) {
  const reached = new Set(topologicalOrder([logits]));
  const names = [...fittable.keys()].filter((name) => {
    const value = parameters.get(name);
    return value !== undefined && reached.has(value);
  });
  const uses = findUses(
    [logits],
    names.map((name) => parameters.get(name)!),
  );
  return names.map((name) => ({ name, ...uses.get(parameters.get(name)!)! }));
}

function isSame(before: Parameter | undefined, after: Parameter): boolean {
  return (
    before !== undefined &&
    before.shape.join() === after.shape.join() &&
    before.data.every((x, i) => x === after.data[i])
  );
}

/** The use of one weight of a layer. */
interface LayerPart {
  readonly user: Value;
  /** Of `user`: where its rows are. */
  readonly axis: number;
  readonly channels: readonly number[];
}

function layersOf(graph: ModelGraph): Map<string, LayerPart[]> {
  const layers = new Map<string, LayerPart[]>();
  for (const { name, user, position } of usesOf(graph)) {
    const { layer, channels } = graph.fittable.get(name)!;
    const axis = user.operation.rowAxis?.(user, position);
    if (axis === undefined) continue;
    layers.set(layer, [...(layers.get(layer) ?? []), { user, axis, channels }]);
  }
  return layers;
}

/** `value`, which is laid out like the result of `part`: [N, rows, positions]. */
function rowsOf({ axis }: LayerPart, value: Value): Value {
  const order = [0, axis, ...[...value.shape.keys()].filter((k) => k !== 0 && k !== axis)];
  const turned = transpose(value, order);
  return reshape(turned, [turned.shape[0], turned.shape[1], sizeOf(turned.shape.slice(2))]);
}

/** Where branches of a graph are added up. */
class Sums {
  readonly #users = new Map<Value, Value[]>();
  /** Of values that depend on the samples: the last step that changes them, −1 if none does. */
  readonly #settled = new Map<Value, number>();

  /** @param changes The weights that the steps change, each with the shift of its layer. */
  constructor(graph: ModelGraph, changes: readonly { readonly name: string }[]) {
    const steps = new Map<Value | undefined, number>();
    changes.forEach(({ name }, step) => {
      steps.set(graph.parameters.get(name), step);
      steps.set(graph.parameters.get(graph.fittable.get(name)!.shift?.parameter ?? ""), step);
    });
    const inputs = new Set(Object.values(graph.inputs));
    const last = new Map<Value, number>();
    for (const value of topologicalOrder([graph.logits])) {
      for (const operand of value.inputs) {
        this.#users.set(operand, [...(this.#users.get(operand) ?? []), value]);
      }
      const before = value.inputs.map((operand) => last.get(operand)!);
      last.set(value, Math.max(steps.get(value) ?? -1, ...before));
      const varies = value.inputs.some((operand) => this.#settled.has(operand));
      if (varies || inputs.has(value)) this.#settled.set(value, last.get(value)!);
    }
  }

  /**
   * The last sum, of several things that depend on the samples, that `user` goes into by affine functions
   * of its elements; none if what is added to it changes at `step` or later.
   *
   * @param layer To which `user` belongs, the rest of which has other rows.
   */
  find(user: Value, layer: readonly LayerPart[], step: number): Value | undefined {
    const own = new Set(layer.map((part) => part.user));
    let sum: Value | undefined;
    for (let value = user; ; ) {
      const [next, ...others] = this.#users.get(value) ?? [];
      if (next === undefined || others.length > 0) return sum;
      if (!next.operation.affine?.(next, next.inputs.indexOf(value))) return sum;
      // What is put beside the elements, as by concat, is not added to them.
      const added = next.inputs.filter(
        (operand) =>
          operand !== value &&
          !own.has(operand) &&
          this.#settled.has(operand) &&
          sameShape(operand.shape, next.shape),
      );
      if (added.some((operand) => this.#settled.get(operand)! >= step)) return undefined;
      if (added.length > 0) sum = next;
      value = next;
    }
  }
}

// Slopes are those of normalisation, about 1. Channels that next to nothing comes through are fitted to
// nothing, which changes nothing.
const LEAST_SLOPE_SQUARED = 1e-12;

/** `value / slope`, and nothing where there is hardly a slope. */
export function divideBySlope(value: Value, slope: Value): Value {
  const weight = add(square(slope), scalar(LEAST_SLOPE_SQUARED));
  return divide(multiply(value, slope), weight);
}

/** What `sum` is where each element of `user` goes, and how it grows with that. */
function pullBack(sum: Value, user: Value): { readonly value: Value; readonly slope: Value } {
  const [back] = vjp([sum], [sum], [user]);
  const [slope] = vjp([sum], [full(sum.shape, 1)], [user]);
  return { value: divideBySlope(back, slope), slope };
}

function openSum(sum: Value, part: LayerPart, layer: readonly LayerPart[]): OpenSum {
  const { value, slope } = pullBack(sum, part.user);
  // Values that depend on the weight itself must not be computed here, since later steps would hold them.
  const without = new Map(layer.map(({ user }) => [user, full(user.shape, 0)]));
  const [rest, growth] = substitute([value, slope], without);
  return { rest: rowsOf(part, rest), slope: rowsOf(part, growth) };
}
