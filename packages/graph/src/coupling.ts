/**
 * @file Which slices of which parameters belong together: derived from the graph by following every
 * index of every axis through its operations.
 */
import { EspalierError } from "@espalier/base";
import { type Operation, type Shape, topologicalOrder, type Value } from "./value.ts";

/**
 * What each index of one axis stands for: the number of a channel, or `ZERO` for padding. Undefined
 * for axes that nothing may be removed from: samples, positions, inputs.
 */
export type AxisChannels = Int32Array | undefined;

/** Marks an index that always holds zeros, and therefore goes with anything. */
export const ZERO = -1;

/**
 * What an addition of two activations means. "together": a channel is removed from all summands or
 * from none. "apart": each summand loses channels by itself, and the sum loses those that all have
 * lost (HAP's treatment of residual connections).
 */
export type AdditionPolicy = "together" | "apart";

/** One index of one axis of a parameter. */
export interface Slice {
  readonly parameter: string;
  readonly axis: number;
  readonly index: number;
}

/** Slices that can only be removed together. */
export interface CoupledSlices {
  readonly slices: readonly Slice[];
  /** Whether something forbids removal: a network's outputs, or an operation that mixes channels. */
  readonly fixed: boolean;
}

/** The bookkeeping that the operations' `couple` rules work on. */
export class Coupling {
  readonly #policy: AdditionPolicy;
  /** Union-find: the parent of each channel. */
  readonly #parents: number[] = [];
  readonly #fixed: boolean[] = [];
  /** Whether a channel is made by a row of a weight. */
  readonly #produced: boolean[] = [];
  /** Sums whose summands lose channels apart. */
  readonly #sums: { readonly channels: Int32Array; readonly summands: readonly Int32Array[] }[] =
    [];

  constructor(policy: AdditionPolicy) {
    this.#policy = policy;
  }

  /** New channels, one for each index of an axis. */
  fresh(count: number, produced: boolean): Int32Array {
    return Int32Array.from({ length: count }, () => {
      this.#parents.push(this.#parents.length);
      this.#fixed.push(false);
      this.#produced.push(produced);
      return this.#parents.length - 1;
    });
  }

  /** The number that stands for all channels united with `channel`. */
  find(channel: number): number {
    let root = channel;
    while (this.#parents[root] !== root) root = this.#parents[root];
    while (this.#parents[channel] !== root) {
      [channel, this.#parents[channel]] = [this.#parents[channel], root];
    }
    return root;
  }

  isFixed(channel: number): boolean {
    return this.#fixed[this.find(channel)];
  }

  /** Nothing of `axis` may be removed. */
  fix(axis: AxisChannels): void {
    for (const channel of axis ?? []) {
      if (channel !== ZERO) this.#fixed[this.find(channel)] = true;
    }
  }

  /** Two channels become one. */
  uniteChannels(a: number, b: number): void {
    if (a === ZERO || b === ZERO) return;
    const [x, y] = [this.find(a), this.find(b)];
    if (x === y) return;
    this.#parents[y] = x;
    this.#fixed[x] ||= this.#fixed[y];
    this.#produced[x] ||= this.#produced[y];
  }

  /** Index by index, two axes are the same channels. The result is what both are. */
  unite(a: AxisChannels, b: AxisChannels): AxisChannels {
    if (a === undefined || b === undefined) {
      this.fix(a ?? b);
      return undefined;
    }
    a.forEach((channel, i) => {
      this.uniteChannels(channel, b[i]);
    });
    return a.map((channel, i) => (channel === ZERO ? b[i] : channel));
  }

  /** The channels of a sum of two axes. */
  add(a: AxisChannels, b: AxisChannels): AxisChannels {
    const bothProduced = [a, b].every((axis) =>
      axis?.some((channel) => channel !== ZERO && this.#produced[this.find(channel)]),
    );
    if (this.#policy === "together" || !bothProduced) return this.unite(a, b);
    const channels = this.fresh(a!.length, true);
    this.#sums.push({ channels, summands: [a!, b!] });
    return channels;
  }

  /**
   * Passes on what was learnt of sums after they were made: a sum that may not lose a channel, or
   * only with another one, is one whose summands may not either.
   */
  settle(): void {
    let settled = false;
    while (!settled) {
      settled = true;
      for (const { channels, summands } of this.#sums) {
        const firstOf = new Map<number, number>();
        channels.forEach((channel, i) => {
          const root = this.find(channel);
          const first = firstOf.get(root) ?? i;
          firstOf.set(root, first);
          for (const summand of summands) {
            if (summand[i] === ZERO) continue;
            if (this.isFixed(root) && !this.isFixed(summand[i])) {
              this.fix(summand.subarray(i, i + 1));
              settled = false;
            }
            if (summand[first] === ZERO) continue;
            if (this.find(summand[i]) !== this.find(summand[first])) {
              this.uniteChannels(summand[i], summand[first]);
              settled = false;
            }
          }
        });
      }
    }
  }
}

/** Every axis may keep or lose channels as the single input does. */
export const coupleUnary: NonNullable<Operation["couple"]> = (_value, [x]) => x;

/**
 * Element-wise operations: axes that are not broadcast are the same channels. What is repeated along
 * an axis cannot be removed from there.
 */
export function coupleElementwise(combine: "unite" | "add"): NonNullable<Operation["couple"]> {
  return (value, operands, coupling) =>
    value.shape.map((size, axis) => {
      let result: AxisChannels;
      let first = true;
      value.inputs.forEach((input, i) => {
        const own = axis - value.shape.length + input.shape.length;
        if (own < 0) return;
        if (input.shape[own] === 1 && size !== 1) {
          coupling.fix(operands[i][own]);
          return;
        }
        const channels = operands[i][own];
        result = first ? channels : coupling[combine](result, channels);
        first = false;
      });
      return result;
    });
}

/** Nothing may be removed from any axis of the inputs. */
function coupleNothing(
  value: Value,
  operands: readonly AxisChannels[][],
  coupling: Coupling,
): AxisChannels[] {
  for (const axes of operands) {
    for (const axis of axes) coupling.fix(axis);
  }
  return value.shape.map(() => undefined);
}

export interface CoupledParameter {
  readonly value: Value;
  /** Whether rows along axis 0 make the channels of an operation's result. */
  readonly producesRows: boolean;
}

/**
 * The coupled slices of `parameters`, in the order of their first slice.
 *
 * @param outputs What the network computes; nothing is removed from these.
 */
export function coupleSlices(
  outputs: readonly Value[],
  parameters: ReadonlyMap<string, CoupledParameter>,
  policy: AdditionPolicy = "together",
): CoupledSlices[] {
  const coupling = new Coupling(policy);
  const known = new Map<Value, readonly AxisChannels[]>();
  const axesOf = (shape: Shape, producesRows: boolean) =>
    shape.map((size, axis) => coupling.fresh(size, producesRows && axis === 0));
  for (const { value, producesRows } of parameters.values()) {
    known.set(value, axesOf(value.shape, producesRows));
  }
  for (const value of topologicalOrder(outputs)) {
    if (known.has(value)) continue;
    const operands = value.inputs.map((input) => [...known.get(input)!]);
    const rule = value.operation.couple ?? coupleNothing;
    const axes = rule(value, operands, coupling);
    if (axes.length !== value.shape.length) {
      throw new EspalierError(
        "invalid-graph",
        `${value.operation.name}: its coupling rule gave ${axes.length} axes for [${value.shape}]`,
      );
    }
    known.set(value, axes);
  }
  for (const output of outputs) {
    for (const axis of known.get(output)!) coupling.fix(axis);
  }
  coupling.settle();

  const classes = new Map<number, Slice[]>();
  for (const [parameter, { value }] of parameters) {
    known.get(value)!.forEach((channels, axis) => {
      channels?.forEach((channel, index) => {
        const root = coupling.find(channel);
        const slices = classes.get(root) ?? [];
        if (slices.length === 0) classes.set(root, slices);
        slices.push({ parameter, axis, index });
      });
    });
  }
  return [...classes].map(([root, slices]) => ({ slices, fixed: coupling.isFixed(root) }));
}
