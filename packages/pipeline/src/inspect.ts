/** @file What a model is made of. */
import { componentGroups, type Model, sizeOfModel } from "@espalier/core";
import { cost } from "@espalier/graph";

export interface LayerInspection {
  /** A weight without ".weight". */
  readonly layer: string;
  readonly shape: readonly number[];
  readonly parameters: number;
  /** Whether its rows are implants. */
  readonly implant: boolean;
}

export interface Inspection {
  readonly family: string;
  readonly preset: string | undefined;
  readonly classes: readonly string[];
  readonly input: readonly number[];
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly parameters: number;
  readonly macs: number;
  /** Peak of the memory of one sample's activations and all parameters, in bytes. */
  readonly peakBytes: number;
  readonly components: number;
  readonly implants: number;
  readonly layers: readonly LayerInspection[];
}

/** Describes `model`: sizes, layers and what of it can be removed. */
export function inspect(model: Model): Inspection {
  const graph = model.build(1, "evaluation");
  const groups = componentGroups(model, "together");
  const layers = [...model.parameters].flatMap(([name, { kind, shape, data }]) =>
    kind === "weight"
      ? [
          {
            layer: name.replace(/\.weight$/, ""),
            shape,
            parameters: data.length,
            implant: graph.implants.has(name),
          },
        ]
      : [],
  );
  const { shape, mean, std } = model.preprocessing;
  return {
    family: model.family.name,
    preset: model.family.presetOf(model.config),
    classes: model.classes,
    input: shape,
    mean,
    std,
    ...sizeOfModel(model),
    peakBytes: cost([graph.logits]).peakBytes,
    components: groups.reduce((sum, { count }) => sum + count, 0),
    implants: groups.reduce((sum, { count, implants }) => sum + (implants ? count : 0), 0),
    layers,
  };
}
