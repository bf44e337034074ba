/** @file Pruned encoders in the shapes that they had before. */
import type { Parameter, Parameters } from "@espalier/core";
import { sizeOf } from "@espalier/graph";
import { type Declaration, type Unit, wholeName } from "./encoder.ts";

/**
 * The parameters of the dense encoder that computes what a pruned one does: those of the pruned one at
 * their places, zeros elsewhere. An implant is a head whose last queries, keys and values are zero.
 *
 * @param pruned What the parameters are declared as.
 * @param dense The same of the dense encoder.
 */
export function fillUp(
  parameters: Parameters,
  pruned: ReadonlyMap<string, Declaration>,
  dense: ReadonlyMap<string, Declaration>,
): Parameters {
  const sources = new Map<string, [string, Declaration][]>();
  for (const entry of pruned) {
    const name = wholeName(entry[0]);
    sources.set(name, [...(sources.get(name) ?? []), entry]);
  }
  return new Map(
    [...dense].map(([name, declared]) => {
      const parts = (sources.get(name) ?? []).map(([source, { kept }]) =>
        kept.reduce<Parameter>(
          (part, units, axis) =>
            units === undefined ? part : spread(part, axis, units, declared, declared.kept[axis]!),
          parameters.get(source)!,
        ),
      );
      return [name, parts.length === 1 ? parts[0] : sumOf(parts, declared)];
    }),
  );
}

/** The sum of parameters of one shape; zeros where a layer that has lost all its heads has none. */
function sumOf(parts: readonly Parameter[], { shape, kind }: Declaration): Parameter {
  const data = new Float32Array(sizeOf(shape));
  for (const part of parts) {
    part.data.forEach((element, i) => {
      data[i] += element;
    });
  }
  return { shape, kind, data };
}

/** `parameter` with its slices along an axis at the places that `units` have among `all`. */
function spread(
  { shape, kind, data }: Parameter,
  axis: number,
  units: readonly Unit[],
  dense: Declaration,
  all: readonly Unit[],
): Parameter {
  const count = dense.shape[axis];
  const inner = sizeOf(shape.slice(axis + 1));
  const outer = sizeOf(shape.slice(0, axis));
  const whole = shape.map((n, i) => (i === axis ? count : n));
  const filled = new Float32Array(sizeOf(whole));
  let from = 0;
  for (let o = 0; o < outer; o++) {
    for (const { unit, span } of units) {
      const place = o * count + unit * all[unit].span;
      filled.set(data.subarray(from, from + span * inner), place * inner);
      from += span * inner;
    }
  }
  return { shape: whole, kind, data: filled };
}
