/** @file Pruned encoders in the shapes that they had before. */
import type { Parameter, Parameters } from "@espalier/core";
import { sizeOf } from "@espalier/graph";
import type { Declaration, Kept } from "./encoder.ts";

/**
 * The parameters of the dense encoder that computes what a pruned one does: those of the pruned one at
 * their places, zeros elsewhere.
 *
 * @param pruned What the parameters are declared as.
 * @param dense The same of the dense encoder.
 */
export function fillUp(
  parameters: Parameters,
  pruned: ReadonlyMap<string, Declaration>,
  dense: ReadonlyMap<string, Declaration>,
): Parameters {
  return new Map(
    [...dense].map(([name, { shape, kind }]) => {
      const left = pruned.get(name);
      // A layer that has lost all its heads has no queries either.
      if (left === undefined) return [name, { shape, kind, data: new Float32Array(sizeOf(shape)) }];
      const parameter = left.kept.reduce<Parameter>(
        (part, kept, axis) => (kept === undefined ? part : spread(part, axis, kept, shape[axis])),
        parameters.get(name)!,
      );
      return [name, parameter];
    }),
  );
}

/** `parameter` with its slices along an axis where `kept` says, among `count`. */
function spread(
  { shape, kind, data }: Parameter,
  axis: number,
  { units, span }: Kept,
  count: number,
): Parameter {
  const inner = sizeOf(shape.slice(axis + 1)) * span;
  const outer = sizeOf(shape.slice(0, axis));
  const whole = shape.map((n, i) => (i === axis ? count : n));
  const filled = new Float32Array(sizeOf(whole));
  const row = count * sizeOf(shape.slice(axis + 1));
  for (let o = 0; o < outer; o++) {
    units.forEach((unit, i) => {
      const from = (o * units.length + i) * inner;
      filled.set(data.subarray(from, from + inner), o * row + unit * inner);
    });
  }
  return { shape: whole, kind, data: filled };
}
