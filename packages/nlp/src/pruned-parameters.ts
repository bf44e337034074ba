/** @file The parameters of a pruned encoder, made of those that it had before. */
import type { Observed, Parameter, Parameters } from "@espalier/core";
import { sizeOf } from "@espalier/graph";
import { Matrix } from "ml-matrix";
import {
  type Declaration,
  type Dimensions,
  type EncoderNames,
  headBatches,
  implantSuffix,
  type Pruning,
  type Unit,
} from "./encoder.ts";
import { type Head, type HeadObservations, type Implant, makeImplant } from "./implants.ts";

/** An encoder as it is or shall be. */
export interface EncoderState {
  readonly pruning: Pruning;
  readonly declarations: ReadonlyMap<string, Declaration>;
}

/** What the parameters of an encoder get from implants that it did not have before. */
class Additions {
  readonly #slices = new Map<string, () => Matrix>();
  readonly #constants = new Map<string, (() => Matrix)[]>();

  add(parameter: string, unit: Unit, make: () => Matrix): void {
    this.#slices.set(`${parameter} ${keyOf(unit)}`, make);
  }

  addConstant(parameter: string, make: () => Matrix): void {
    this.#constants.set(parameter, [...(this.#constants.get(parameter) ?? []), make]);
  }

  /** The slice of a new unit; undefined for others. */
  slice(parameter: string, unit: Unit): ArrayLike<number> | undefined {
    return this.#slices
      .get(`${parameter} ${keyOf(unit)}`)?.()
      .to1DArray();
  }

  /** What is to be added to all of a parameter. */
  constants(parameter: string): readonly (() => Matrix)[] {
    return this.#constants.get(parameter) ?? [];
  }
}

function keyOf({ unit, span }: Unit): string {
  return `${unit} ${span}`;
}

/**
 * The parameters that `after` asks for: slices of those before, and factors of heads that become
 * implants. They are made when they are first read, since most pruned models are built for their cost
 * alone.
 */
export function prunedParameters(
  sizes: Dimensions,
  names: EncoderNames,
  before: EncoderState & {
    readonly parameters: Parameters;
    /** What implants are fitted to; without it, to the weights alone. */
    readonly observed: Observed | undefined;
  },
  after: EncoderState,
): Parameters {
  const additions = new Additions();
  for (let layer = 0; layer < sizes.layers; layer++) {
    const [whole] = headBatches(sizes, before.pruning, layer);
    if (whole?.suffix !== "") continue;
    for (const { suffix, heads, rank } of headBatches(sizes, after.pruning, layer)) {
      const held = suffix === "" ? heads : (before.pruning.implants[layer]?.[rank] ?? []);
      for (const head of heads.filter((each) => !held.includes(each))) {
        const place = whole.heads.indexOf(head);
        const make = once(() => implantOf(names, layer, place, whole.rank, rank, before));
        addImplant(additions, names, layer, { unit: head, span: rank }, make);
      }
    }
  }
  return new Map(
    [...after.declarations].map(([name, { shape, kind, kept }]): [string, Parameter] => {
      const data = once(() => dataOf(name, shape, kept, before, additions));
      return [
        name,
        {
          shape,
          kind,
          get data() {
            return data();
          },
        },
      ];
    }),
  );
}

function addImplant(
  additions: Additions,
  names: EncoderNames,
  layer: number,
  unit: Unit,
  make: () => Implant,
): void {
  const { output, ...projections } = pick(names, layer);
  const suffix = implantSuffix(unit.span);
  for (const part of ["query", "key", "value"] as const) {
    for (const parameter of ["weight", "bias"] as const) {
      const name = `${projections[part]}${suffix}.${parameter}`;
      additions.add(name, unit, () => make()[part][parameter]);
    }
  }
  additions.add(`${output}.weight`, unit, () => make().output);
  additions.addConstant(`${output}.bias`, () => make().constant);
}

function pick(names: EncoderNames, layer: number) {
  const { query, key, value, output } = names.layer(layer);
  return { query, key, value, output };
}

/** The implant for the head at `place` of those that the layer has whole. */
function implantOf(
  names: EncoderNames,
  layer: number,
  place: number,
  span: number,
  rank: number,
  { parameters, observed }: { parameters: Parameters; observed: Observed | undefined },
): Implant {
  const { output, ...projections } = pick(names, layer);
  const slice = (name: string, axis: number) => {
    const { shape, data } = parameters.get(name)!;
    const [rows, columns = 1] = shape;
    const all = Matrix.from1DArray(rows, columns, data);
    const [start, end] = [place * span, (place + 1) * span - 1];
    return axis === 0
      ? all.subMatrix(start, end, 0, columns - 1)
      : all.subMatrix(0, rows - 1, start, end);
  };
  const rowsOf = (name: string) => ({
    weight: slice(`${name}.weight`, 0),
    bias: slice(`${name}.bias`, 0),
  });
  const head: Head = {
    query: rowsOf(projections.query),
    key: rowsOf(projections.key),
    value: rowsOf(projections.value),
    output: slice(`${output}.weight`, 1),
  };
  const sums = observed?.get(`${projections.value}.weight`);
  return makeImplant(head, rank, sums && observationsOf(sums, place, span));
}

function observationsOf(
  sums: readonly Float64Array[],
  place: number,
  span: number,
): HeadObservations {
  const [queries, keys, contexts] = [span, span, span + 1].map((size, i) =>
    Matrix.from1DArray(
      size,
      size,
      sums[i].subarray(place * size * size, (place + 1) * size * size),
    ),
  );
  return { queries, keys, contexts };
}

function dataOf(
  name: string,
  shape: readonly number[],
  kept: Declaration["kept"],
  before: EncoderState & { readonly parameters: Parameters },
  additions: Additions,
): Float32Array {
  const old = before.parameters.get(name);
  const axis = kept.findIndex((units) => units !== undefined);
  const starts = startsOf(before.declarations.get(name)?.kept[axis] ?? []);
  const data =
    axis < 0
      ? old!.data
      : slicesOf(shape, axis, kept[axis]!, (unit) => {
          const added = additions.slice(name, unit);
          return added === undefined
            ? { from: old!.data, start: starts.get(keyOf(unit))!, length: old!.shape[axis] }
            : { from: added, start: 0, length: unit.span };
        });
  const constants = additions.constants(name);
  if (constants.length === 0) return data;
  const total = Float64Array.from(data);
  for (const constant of constants) {
    constant()
      .to1DArray()
      .forEach((value, i) => {
        total[i] += value;
      });
  }
  return Float32Array.from(total);
}

/** Where the indices of each unit begin at an axis. */
function startsOf(units: readonly Unit[]): Map<string, number> {
  let start = 0;
  return new Map(
    units.map((unit) => {
      const first = start;
      start += unit.span;
      return [keyOf(unit), first];
    }),
  );
}

/**
 * A tensor put together of slices along `axis`.
 *
 * @param sourceOf Of a unit: a tensor of the same shape but for that axis, which has `length` indices,
 *   and where the unit begins at it.
 */
function slicesOf(
  shape: readonly number[],
  axis: number,
  units: readonly Unit[],
  sourceOf: (unit: Unit) => { from: ArrayLike<number>; start: number; length: number },
): Float32Array {
  const inner = sizeOf(shape.slice(axis + 1));
  const outer = sizeOf(shape.slice(0, axis));
  const data = new Float32Array(sizeOf(shape));
  let at = 0;
  for (const unit of units) {
    const { from, start, length } = sourceOf(unit);
    for (let o = 0; o < outer; o++) {
      const [to, first] = [(o * shape[axis] + at) * inner, (o * length + start) * inner];
      for (let i = 0; i < unit.span * inner; i++) data[to + i] = from[first + i];
    }
    at += unit.span;
  }
  return data;
}

/** What `make` gives, made when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
