/** @file Models whose parameters do not change, ready to be compiled. */
import type { TensorData, Value } from "@espalier/graph";
import type { Mode, Model, ModelGraph } from "./model.ts";

/** The graph of `model` and its parameters as the constants of a program. */
export function bindParameters(
  model: Model,
  batch: number,
  mode: Mode,
  length?: number,
): { readonly graph: ModelGraph; readonly constants: ReadonlyMap<Value, TensorData> } {
  const graph = model.build(batch, mode, length);
  const constants = new Map(
    [...graph.parameters].map(([name, value]) => [value, model.parameters.get(name)!.data]),
  );
  return { graph, constants };
}
