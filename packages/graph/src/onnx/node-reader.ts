/** @file One ONNX node at a time as values: its inputs and attributes, checked when asked for. */
import { EspalierError, quote } from "@espalier/base";
import { integers, isConstant } from "../ops/leaf.ts";
import { sizeOf, type TensorData, type Value } from "../value.ts";
import type { OnnxAttribute, OnnxNode } from "./builder.ts";
import { LARGEST_RANK, LARGEST_TENSOR } from "./decode.ts";
import type { Fail } from "./invalid-file.ts";

// Numbers in a list that decides a shape: pads have two for each axis.
const LONGEST_LIST = 2 * LARGEST_RANK;

// Elements of all ranges together; those of a network are as long as its axes.
const LARGEST_RANGES = 2 ** 20;

/** The numbers 0, 1, 2, … as values: each length once, and no more than a network can need. */
export class Ranges {
  readonly #known = new Map<number, Value>();
  #elements = 0;

  /** int64 [`count`]; undefined when all of them together have become too long. */
  of(count: number): Value | undefined {
    const known = this.#known.get(count);
    if (known !== undefined) return known;
    this.#elements += count;
    if (this.#elements > LARGEST_RANGES) return undefined;
    const range = integers([count], Array(count).keys());
    this.#known.set(count, range);
    return range;
  }
}

/** Makes the values of a node's outputs, in their order. */
export type Reader = (node: NodeReader) => Value | readonly Value[];

export class NodeReader {
  readonly #node: OnnxNode;
  readonly #inputs: readonly (Value | undefined)[];
  readonly #ranges: Ranges;
  readonly #fail: Fail;
  readonly #asked = new Set<string>();

  /** @param inputs One for each of the node's; undefined for those left out. */
  constructor(node: OnnxNode, inputs: readonly (Value | undefined)[], ranges: Ranges, fail: Fail) {
    this.#node = node;
    this.#inputs = inputs;
    this.#ranges = ranges;
    this.#fail = fail;
  }

  /** Runs `reader`, and checks that it took everything into account and what it made. */
  read(reader: Reader): readonly Value[] {
    let result: Value | readonly Value[];
    try {
      result = reader(this);
    } catch (error) {
      // What an operation says of inputs that do not fit.
      if (EspalierError.isInstance(error, "invalid-graph")) throw this.fail(error.message);
      throw error;
    }
    const unknown = Object.keys(this.#node.attributes).find((name) => !this.#asked.has(name));
    if (unknown !== undefined) throw this.fail(`attribute ${quote(unknown)} is not supported`);
    const values = Array.isArray(result) ? (result as readonly Value[]) : [result as Value];
    if (values.length < this.outputCount) {
      throw this.fail(`expected at most ${values.length} outputs, got ${this.outputCount}`);
    }
    for (const { shape } of values) {
      const size = sizeOf(shape);
      const whole = shape.every((n) => Number.isSafeInteger(n) && n > 0);
      this.expect(
        whole && size <= LARGEST_TENSOR && shape.length <= LARGEST_RANK,
        `expected a result of at most ${LARGEST_TENSOR} elements and at least one, got [${shape.slice(0, LARGEST_RANK)}]`,
      );
    }
    return values;
  }

  fail(message: string): EspalierError {
    const { type, outputs } = this.#node;
    return this.#fail(`node ${quote(outputs[0] ?? "")} (${quote(type)}): ${message}`, {
      node: outputs[0],
      operator: type,
    });
  }

  expect(condition: boolean, message: string): void {
    if (!condition) throw this.fail(message);
  }

  get outputCount(): number {
    return this.#node.outputs.length;
  }

  get inputCount(): number {
    return this.#inputs.length;
  }

  optional(index: number): Value | undefined {
    return this.#inputs[index];
  }

  input(index: number): Value {
    const value = this.#inputs[index];
    if (value === undefined) throw this.fail(`expected an input ${index}`);
    return value;
  }

  /** An input of type float32, of `rank` axes if that is given. */
  floats(index: number, rank?: number): Value {
    const value = this.input(index);
    this.expect(
      value.dtype === "float32" && (rank ?? value.shape.length) === value.shape.length,
      `input ${index}: expected float32${rank === undefined ? "" : ` of rank ${rank}`}, got ${value.dtype}[${value.shape}]`,
    );
    return value;
  }

  /** The elements of an input that must be a constant and short. */
  constants(index: number): number[] {
    const value = this.input(index);
    if (!isConstant(value) || value.attributes.data.length > LONGEST_LIST) {
      throw this.fail(`input ${index}: expected a constant of at most ${LONGEST_LIST} elements`);
    }
    return Array.from(value.attributes.data, Number);
  }

  /** An input of indices from 0 to `length` - 1, which is checked if they are constant. */
  indices(index: number, length: number): Value {
    const value = this.input(index);
    if (isConstant(value)) {
      const [smallest, largest] = extremes(value.attributes.data);
      this.expect(
        smallest >= 0 && largest < length,
        `input ${index}: expected indices from 0 to ${length - 1}, got ${smallest} to ${largest}`,
      );
    }
    return value;
  }

  /** 0, 1, …, `count` - 1. */
  range(count: number): Value {
    const range = this.#ranges.of(count);
    if (range === undefined) throw this.fail(`needs ${count} indices, which is too many`);
    return range;
  }

  number(name: string, fallback: number): number {
    const value = this.#attribute(name) ?? fallback;
    if (typeof value !== "number") throw this.fail(`attribute ${name}: expected a number`);
    return value;
  }

  text(name: string, fallback: string): string {
    const value = this.#attribute(name) ?? fallback;
    if (typeof value !== "string") throw this.fail(`attribute ${name}: expected text`);
    return value;
  }

  /** As many whole numbers as `fallback` has, none below `minimum`. */
  list(name: string, fallback: readonly number[], minimum: number): readonly number[] {
    const value = this.#attribute(name) ?? fallback;
    if (
      typeof value === "number" ||
      typeof value === "string" ||
      value.length !== fallback.length ||
      value.some((n) => n < minimum)
    ) {
      throw this.fail(
        `attribute ${name}: expected ${fallback.length} numbers from ${minimum}, got ${show(value)}`,
      );
    }
    return value;
  }

  /** Refuses any value of an attribute but the one that is also its default. */
  only(name: string, supported: OnnxAttribute): void {
    const value = this.#attribute(name) ?? supported;
    this.expect(
      String(value) === String(supported),
      `attribute ${name}: ${show(value)} is not supported, only ${show(supported)}`,
    );
  }

  /** An axis of `value`, counted from the end when negative. */
  axis(axis: number, value: Value): number {
    const rank = value.shape.length;
    const normalized = axis < 0 ? axis + rank : axis;
    this.expect(
      normalized >= 0 && normalized < rank,
      `expected an axis of a tensor of rank ${rank}, got ${axis}`,
    );
    return normalized;
  }

  #attribute(name: string): OnnxAttribute | undefined {
    this.#asked.add(name);
    return Object.hasOwn(this.#node.attributes, name) ? this.#node.attributes[name] : undefined;
  }
}

function show(value: OnnxAttribute): string {
  return quote(String(value));
}

const known = new WeakMap<TensorData, readonly [number, number]>();

/** The smallest and the largest element. */
function extremes(data: TensorData): readonly [number, number] {
  let result = known.get(data);
  if (result === undefined) {
    let [smallest, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const element of data) {
      smallest = Math.min(smallest, Number(element));
      largest = Math.max(largest, Number(element));
    }
    result = [smallest, largest];
    known.set(data, result);
  }
  return result;
}
