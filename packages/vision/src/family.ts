/** @file Families of image classifiers, each defined by its layers and the names of its tensors. */
import { EspalierError } from "@espalier/base";
import {
  type CheckpointSource,
  checkConfig,
  collectParameters,
  type ImagePreprocessing,
  type Mode,
  type Model,
  type ModelConfig,
  type ModelFamily,
  type NamedTensor,
  type Parameter,
  type Parameters,
  type Random,
  type RowSelection,
} from "@espalier/core";
import { sizeOf, type Value } from "@espalier/graph";
import * as z from "zod";
import { type Declaration, type Feature, Network, type Pruning, positionsOf } from "./network.ts";

/** The `config.json` of an image classifier. */
export interface VisionConfig extends ModelConfig {
  readonly num_labels: number;
  readonly id2label: Readonly<Record<string, string>>;
  /** How pixels become inputs; part of the model, since other constants cost accuracy. */
  readonly image: ImagePreprocessing;
  /** What is left of each layer; absent where the model is whole. */
  readonly pruning?: Pruning | undefined;
}

// A network with more is a mistake or an attack: its graph would fill the memory.
const MOST_LAYERS = 2000;
const MOST_CHANNELS = 1 << 20;

/** A number of channels, or of positions along an axis of an image. */
export const size = z.int().min(1).max(MOST_CHANNELS);

/** A number of layers or blocks. */
export const layerCount = z.int().min(1).max(MOST_LAYERS);

const image = z
  .object({
    shape: z.tuple([size, size, size]),
    mean: z.array(z.number()),
    std: z.array(z.number().positive()),
    crop: z.number().positive().max(1).optional(),
  })
  .refine(({ shape, mean, std }) => mean.length === shape[0] && std.length === shape[0], {
    error: "expected a mean and a std for each channel of the shape",
  });

const pruning = z
  .object({
    channels: z.record(
      z.string(),
      z
        .array(z.int().min(0).max(MOST_CHANNELS))
        .refine((list) => new Set(list).size === list.length, {
          error: "expected distinct channel numbers",
        }),
    ),
    implants: z.record(z.string(), z.int().min(0)),
  })
  .refine(
    ({ channels, implants }) =>
      Object.entries(implants).every(([layer, n]) => !(n > (channels[layer]?.length ?? n))),
    { error: "expected no more implants than channels" },
  );

/** The fields that all image classifiers share, to be extended with an architecture's own. */
export const visionConfig = z.looseObject({
  num_labels: size,
  id2label: z.record(z.string(), z.string()),
  image,
  pruning: pruning.optional(),
});

/** What a family of image classifiers must say of itself. */
export interface Architecture<Config extends VisionConfig> {
  /** Also the `model_type` of its configurations. */
  readonly name: string;
  /** Checks a configuration, which may come from anywhere. */
  readonly schema: z.ZodType<Config>;
  readonly presets: Readonly<Record<string, Config>>;
  /** The fields that tell networks apart: a model that has a preset's is called like it. */
  readonly presetFields: readonly (keyof Config)[];
  /** As in ModelFamily. */
  readonly piecewiseLinear: boolean;
  /** The configuration that the tensors of a foreign checkpoint imply; see ModelFamily.detect. */
  recognize(source: CheckpointSource): Config | undefined;
  /** Our name of a tensor that other projects call `name`; undefined for one to be ignored. */
  canonicalName(name: string): string | undefined;
  /** Builds the network from the image to the logits. */
  forward(network: Network, image: Feature, config: Config): Value;
}

export function defineVisionFamily<Config extends VisionConfig>(
  architecture: Architecture<Config>,
): ModelFamily {
  const family: ModelFamily = {
    name: architecture.name,
    presets: architecture.presets,
    piecewiseLinear: architecture.piecewiseLinear,
    presetOf: (config) => {
      const described = (of: ModelConfig) =>
        JSON.stringify(architecture.presetFields.map((field) => of[field as string]));
      const { presets } = architecture;
      return Object.keys(presets).find((name) => described(presets[name]) === described(config));
    },
    detect: (source) => {
      if (source.config === undefined) return architecture.recognize(source);
      return source.config.model_type === architecture.name ? source.config : undefined;
    },
    load: (source, config) => {
      const checked = checkConfig(architecture.schema, config, source.path);
      const declarations = declareFrom(source.path, architecture, checked);
      return createModel(
        family,
        architecture,
        checked,
        collectParameters(source.path, canonicalTensors(architecture, source), declarations),
      );
    },
    withClasses: (config, classes) => ({
      ...config,
      num_labels: classes.length,
      id2label: Object.fromEntries(classes.map((name, i) => [String(i), name])),
    }),
    initialize: (config, random) => {
      const parameters = new Map<string, Parameter>();
      for (const [name, declaration] of declare(architecture, config as Config)) {
        const data = draw(declaration, random.stream("initialize", name));
        parameters.set(name, { shape: declaration.shape, kind: declaration.kind, data });
      }
      return createModel(family, architecture, config as Config, parameters);
    },
  };
  return family;
}

function build<Config extends VisionConfig>(
  { forward }: Architecture<Config>,
  config: Config,
  batch: number,
  mode: Mode,
) {
  const network = new Network(mode, config.pruning);
  const image = network.image("pixel_values", [batch, ...config.image.shape]);
  const logits = forward(network, image, config);
  if (logits.shape[1] !== config.num_labels) {
    throw new EspalierError(
      "mismatched-model",
      `expected ${config.num_labels} logits, got ${logits.shape[1]}`,
    );
  }
  return { network, graph: network.graph(image, logits) };
}

function declare<Config extends VisionConfig>(
  architecture: Architecture<Config>,
  config: Config,
): ReadonlyMap<string, Declaration> {
  return build(architecture, config, 1, "evaluation").network.declarations;
}

/** As `declare`, for a configuration that came from the file `path`. */
function declareFrom<Config extends VisionConfig>(
  path: string,
  architecture: Architecture<Config>,
  config: Config,
): ReadonlyMap<string, Declaration> {
  try {
    return declare(architecture, config);
  } catch (error) {
    if (!EspalierError.isInstance(error)) throw error;
    throw new EspalierError("mismatched-model", `${path}: ${error.message}`, { path }, error);
  }
}

function createModel<Config extends VisionConfig>(
  family: ModelFamily,
  architecture: Architecture<Config>,
  config: Config,
  parameters: Parameters,
): Model {
  // A plan prunes one model many times.
  let network: Network | undefined;
  return {
    family,
    config,
    parameters,
    preprocessing: { kind: "image", ...config.image },
    classes: Array.from(
      { length: config.num_labels },
      (_, i) => config.id2label[String(i)] ?? `class ${i}`,
    ),
    build: (batch, mode) => build(architecture, config, batch, mode).graph,
    prune: (selection) => {
      network ??= build(architecture, config, 1, "evaluation").network;
      const pruning = pruningOf(architecture, config, network, selection);
      const pruned = { ...config, pruning };
      const kept = reduce(parameters, network.declarations, declare(architecture, pruned));
      return createModel(family, architecture, pruned, kept);
    },
    withParameters: (replaced) => createModel(family, architecture, config, replaced),
  };
}

/** The tensors of a checkpoint by the names that they have in our models. */
function canonicalTensors<Config extends VisionConfig>(
  { canonicalName }: Architecture<Config>,
  { tensors }: CheckpointSource,
): Map<string, NamedTensor> {
  const found = new Map<string, NamedTensor>();
  for (const [name, tensor] of tensors) {
    const canonical = canonicalName(name);
    if (canonical !== undefined) found.set(canonical, { name, tensor });
  }
  return found;
}

function draw({ shape, initialization }: Declaration, random: Random): Float32Array {
  const data = new Float32Array(sizeOf(shape));
  if ("value" in initialization) return data.fill(initialization.value);
  for (let i = 0; i < data.length; i++) {
    data[i] =
      "normal" in initialization
        ? random.normal() * initialization.normal
        : (2 * random.uniform() - 1) * initialization.uniform;
  }
  return data;
}

/** What is left of each layer when only the selected rows are. */
function pruningOf<Config extends VisionConfig>(
  architecture: Architecture<Config>,
  config: Config,
  network: Network,
  selection: RowSelection,
): Pruning {
  const { declarations } = network;
  const channels: Record<string, readonly number[]> = { ...config.pruning?.channels };
  const implants: Record<string, number> = { ...config.pruning?.implants };
  const layers = new Set(
    [...selection.keys()].map((name) => name.replace(/(\.implant)?\.weight$/, "")),
  );
  for (const layer of layers) {
    const rowsOf = (name: string) => {
      const held = declarations.get(name)?.channels[0] ?? [];
      const all = held.map((_, row) => ({ row, implant: false }));
      return (selection.get(name) ?? all).map(({ row, implant }) => ({
        channel: held[row],
        implant,
      }));
    };
    const rows = rowsOf(`${layer}.weight`);
    const old = rowsOf(`${layer}.implant.weight`);
    const made = [...rows.filter(({ implant }) => implant), ...old];
    const kept = [...rows.filter(({ implant }) => !implant), ...made];
    if (kept.length === 0 && !network.emptiable.has(`${layer}.weight`)) {
      throw new EspalierError(
        "invalid-argument",
        `${layer}: expected at least one row to be kept`,
        {
          layer,
        },
      );
    }
    channels[layer] = kept.map(({ channel }) => channel);
    if (made.length > 0) implants[layer] = made.length;
    else delete implants[layer];
  }
  // Of a branch that is gone, no layer has channels left, and a depthwise layer only those of its input.
  const left = declare(architecture, { ...config, pruning: { channels, implants } });
  const heldBy = (name: string) => left.get(name)?.channels[0] ?? [];
  for (const name of network.sites.keys()) {
    const layer = name.replace(/(\.implant)?\.weight$/, "");
    const made = heldBy(`${layer}.implant.weight`);
    const held = [...heldBy(`${layer}.weight`), ...made];
    if (held.length === 0 || Object.hasOwn(channels, layer)) channels[layer] = held;
    if (made.length > 0) implants[layer] = made.length;
    else delete implants[layer];
  }
  return { channels, implants };
}

/**
 * The slices of `parameters` that the declarations `after` ask for. They are copied when they are
 * first read: most pruned models are built for their cost alone.
 */
function reduce(
  parameters: Parameters,
  before: ReadonlyMap<string, Declaration>,
  after: ReadonlyMap<string, Declaration>,
): Parameters {
  const reduced = new Map<string, Parameter>();
  for (const [name, declaration] of after) {
    const { shape, kind } = declaration;
    let data: Float32Array | undefined;
    reduced.set(name, {
      shape,
      kind,
      get data() {
        data ??= sliceOf(name, declaration, parameters, before);
        return data;
      },
    });
  }
  return reduced;
}

function sliceOf(
  name: string,
  { shape, channels }: Declaration,
  parameters: Parameters,
  before: ReadonlyMap<string, Declaration>,
): Float32Array {
  const own = before.get(name);
  const data = new Float32Array(sizeOf(shape));
  const rowLength = data.length / shape[0];
  const rows = channels[0] ?? Array.from({ length: shape[0] }, (_, row) => row);
  rows.forEach((channel, row) => {
    const held = own?.channels[0]?.indexOf(channel) ?? row;
    const taken =
      own !== undefined && held >= 0
        ? sliceRow(parameters.get(name)!, own, held, channels)
        : centreTap(parameters, before, name, channel, channels);
    data.set(taken, row * rowLength);
  });
  return data;
}

/** Row `row` of a parameter, with the wanted columns of axis 1 alone. */
function sliceRow(
  { shape, data }: Parameter,
  { channels }: Declaration,
  row: number,
  wanted: Declaration["channels"],
): Float32Array {
  const length = sizeOf(shape.slice(1));
  const whole = data.subarray(row * length, (row + 1) * length);
  if (channels[1] === undefined || wanted[1] === undefined) return whole;
  const inner = sizeOf(shape.slice(2));
  const columns = positionsOf(wanted[1], channels[1]);
  const result = new Float32Array(columns.length * inner);
  columns.forEach((column, i) => {
    result.set(whole.subarray(column * inner, (column + 1) * inner), i * inner);
  });
  return result;
}

/** The first value of a new implant for `channel`: the centre of the kernel that it replaces. */
function centreTap(
  parameters: Parameters,
  before: ReadonlyMap<string, Declaration>,
  implant: string,
  channel: number,
  wanted: Declaration["channels"],
): Float32Array {
  const source = implant.replace(/\.implant\.weight$/, ".weight");
  const declaration = before.get(source)!;
  const row = declaration.channels[0]!.indexOf(channel);
  const taps = sizeOf(declaration.shape.slice(2));
  const kernels = sliceRow(parameters.get(source)!, declaration, row, wanted);
  return kernels.filter((_, i) => i % taps === (taps - 1) / 2);
}
