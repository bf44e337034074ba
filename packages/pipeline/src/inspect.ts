/** @file What a model is made of. */
import { type ComponentKind, componentGroups, type Model, sizeOfModel } from "@espalier/core";
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
  /** [channels, height, width] of images; of texts the most tokens. */
  readonly input: readonly number[];
  /** Per channel of images. */
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly parameters: number;
  readonly macs: number;
  /** Peak of the memory of one sample's activations and all parameters, in bytes. */
  readonly peakBytes: number;
  readonly components: number;
  /** How many of them are of each kind. */
  readonly kinds: Partial<Record<ComponentKind, number>>;
  readonly implants: number;
  readonly layers: readonly LayerInspection[];
}

/** Describes `model`: sizes, layers and what of it can be removed. */
export function inspect(model: Model): Inspection {
  const graph = model.build(1, "evaluation");
  const groups = componentGroups(model, "together");
  const made = groups.filter((group) => group.implants);
  const implants = new Set(made.flatMap(({ rows }) => rows.map(({ parameter }) => parameter)));
  const layers = [...model.parameters].flatMap(([name, { kind, shape, data }]) =>
    kind === "weight"
      ? [
          {
            layer: name.replace(/\.weight$/, ""),
            shape,
            parameters: data.length,
            implant: graph.implants.has(name) || implants.has(name),
          },
        ]
      : [],
  );
  const kinds: Partial<Record<ComponentKind, number>> = {};
  for (const { kind, count } of groups) kinds[kind] = (kinds[kind] ?? 0) + count;
  return {
    family: model.family.name,
    preset: model.family.presetOf(model.config),
    classes: model.classes,
    ...inputOf(model),
    ...sizeOfModel(model),
    peakBytes: cost([graph.logits]).peakBytes,
    kinds,
    components: groups.reduce((sum, { count }) => sum + count, 0),
    implants: groups.reduce((sum, { count, implants }) => sum + (implants ? count : 0), 0),
    layers,
  };
}

function inputOf({ preprocessing }: Model): Pick<Inspection, "input" | "mean" | "std"> {
  if (preprocessing.kind === "text") return { input: [preprocessing.maxLength] };
  const { shape, mean, std } = preprocessing;
  return { input: shape, mean, std };
}
