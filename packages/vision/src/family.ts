/** @file Families of image classifiers, each defined by its layers and the names of its tensors. */
import { EspalierError } from "@espalier/base";
import type {
  CheckpointSource,
  ImagePreprocessing,
  Mode,
  Model,
  ModelConfig,
  ModelFamily,
  Parameter,
  Parameters,
  Random,
  RowSelection,
} from "@espalier/core";
import { type Shape, sizeOf, type Value } from "@espalier/graph";
import { findImplants, fitImplants } from "./implants.ts";
import { type Declaration, type Feature, Network, type Pruning, positionsOf } from "./network.ts";

/** The `config.json` of an image classifier. */
export interface VisionConfig extends ModelConfig {
  readonly num_labels: number;
  readonly id2label: Readonly<Record<string, string>>;
  /** How pixels become inputs; part of the model, since other constants cost accuracy. */
  readonly image: ImagePreprocessing;
  /** What is left of each layer; absent where the model is whole. */
  readonly pruning?: Pruning;
}

/** What a family of image classifiers must say of itself. */
export interface Architecture<Config extends VisionConfig> {
  /** Also the `model_type` of its configurations. */
  readonly name: string;
  readonly presets: Readonly<Record<string, Config>>;
  /** As in ModelFamily. */
  presetOf(config: Config): string | undefined;
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
    presetOf: (config) => architecture.presetOf(config as Config),
    detect: (source) => {
      if (source.config === undefined) return architecture.recognize(source);
      return source.config.model_type === architecture.name ? source.config : undefined;
    },
    load: (source, config) => {
      const checked = checkConfig(config as Config, source.path);
      const declarations = declareFrom(source.path, architecture, checked);
      return createModel(
        family,
        architecture,
        checked,
        collect(architecture, source, declarations),
      );
    },
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
  const model: Model = {
    family,
    config,
    parameters,
    preprocessing: config.image,
    classes: Array.from(
      { length: config.num_labels },
      (_, i) => config.id2label[String(i)] ?? `class ${i}`,
    ),
    build: (batch, mode) => build(architecture, config, batch, mode).graph,
    prune: (selection) => {
      const pruned = { ...config, pruning: pruningOf(architecture, config, selection) };
      const kept = reduce(parameters, declare(architecture, config), declare(architecture, pruned));
      return createModel(family, architecture, pruned, kept);
    },
    fitImplants: (pruned, samples, options) => {
      const before = declare(architecture, config);
      const after = declare(architecture, pruned.config as Config);
      return fitImplants(model, pruned, findImplants(before, after), samples, options);
    },
    withParameters: (replaced) => createModel(family, architecture, config, replaced),
  };
  return model;
}

/** Checks the fields that all image classifiers share; the file may come from anywhere. */
function checkConfig<Config extends VisionConfig>(config: Config, path: string): Config {
  const fail = (field: string, expected: string): never => {
    throw new EspalierError(
      "mismatched-model",
      `${path}: config.${field}: expected ${expected}, got ${JSON.stringify(config[field])}`,
      { path, field },
    );
  };
  const { num_labels: labels, image, pruning } = config;
  if (!Number.isInteger(labels) || labels < 1) fail("num_labels", "a positive whole number");
  if (typeof config.id2label !== "object" || config.id2label === null)
    fail("id2label", "an object");
  const sized = (list: unknown, length: number) =>
    Array.isArray(list) && list.length === length && list.every(Number.isFinite);
  if (
    typeof image !== "object" ||
    image === null ||
    !sized(image.shape, 3) ||
    !image.shape.every((n) => Number.isInteger(n) && n > 0) ||
    !sized(image.mean, image.shape[0]) ||
    !sized(image.std, image.shape[0]) ||
    !image.std.every((n) => n > 0)
  ) {
    fail("image", "shape [channels, height, width] with mean and std for each channel");
  }
  if (pruning === undefined) return config;
  const isObject = (value: unknown) => typeof value === "object" && value !== null;
  if (!isObject(pruning) || !isObject(pruning.channels) || !isObject(pruning.implants)) {
    fail("pruning", "an object with channels and implants");
  }
  for (const [layer, channels] of Object.entries(pruning.channels)) {
    const distinct = Array.isArray(channels) && new Set(channels).size === channels.length;
    if (!distinct || !channels.every((n) => Number.isInteger(n) && n >= 0)) {
      fail("pruning", `distinct channel numbers for ${layer}`);
    }
  }
  for (const [layer, count] of Object.entries(pruning.implants)) {
    const total = pruning.channels[layer]?.length ?? Number.POSITIVE_INFINITY;
    if (!Number.isInteger(count) || count < 0 || count > total) {
      fail("pruning", `no more implants than channels for ${layer}`);
    }
  }
  return config;
}

/** The tensors of a checkpoint as parameters, each exactly as declared. */
function collect<Config extends VisionConfig>(
  { canonicalName }: Architecture<Config>,
  { tensors, path }: CheckpointSource,
  declarations: ReadonlyMap<string, Declaration>,
): Parameters {
  const found = new Map<string, { name: string; shape: Shape; data: Float32Array }>();
  for (const [name, tensor] of tensors) {
    const canonical = canonicalName(name);
    if (canonical === undefined) continue;
    if (!declarations.has(canonical)) {
      throw new EspalierError(
        "mismatched-model",
        `${path}: tensor ${name} has no place in the model`,
        {
          path,
          tensor: name,
        },
      );
    }
    found.set(canonical, { name, ...tensor });
  }
  const parameters = new Map<string, Parameter>();
  for (const [name, { shape, kind }] of declarations) {
    const tensor = found.get(name);
    if (tensor === undefined) {
      throw new EspalierError(
        "mismatched-model",
        `${path}: tensor ${name} is missing, expected shape [${shape}]`,
        { path, tensor: name, expected: shape },
      );
    }
    if (tensor.shape.join() !== shape.join()) {
      throw new EspalierError(
        "mismatched-model",
        `${path}: tensor ${tensor.name}: expected shape [${shape}], got [${tensor.shape}]`,
        { path, tensor: tensor.name, expected: shape, actual: tensor.shape },
      );
    }
    const wrong = tensor.data.findIndex((element) => !Number.isFinite(element));
    if (wrong >= 0) {
      throw new EspalierError(
        "not-finite",
        `${path}: tensor ${tensor.name}: expected finite numbers, got ${tensor.data[wrong]} at ${wrong}`,
        { path, tensor: tensor.name, index: wrong },
      );
    }
    parameters.set(name, { shape, kind, data: tensor.data });
  }
  return parameters;
}

function draw({ shape, initialization }: Declaration, random: Random): Float32Array {
  const fanIn = sizeOf(shape.slice(1));
  const next: Record<Declaration["initialization"], () => number> = {
    // He et al. 2015, arXiv 1502.01852.
    "he-normal": () => random.normal() * Math.sqrt(2 / fanIn),
    "fan-in-uniform": () => (2 * random.uniform() - 1) / Math.sqrt(fanIn),
    zeros: () => 0,
    ones: () => 1,
  };
  return Float32Array.from({ length: sizeOf(shape) }, next[initialization]);
}

/** What is left of each layer when only the selected rows are. */
function pruningOf<Config extends VisionConfig>(
  architecture: Architecture<Config>,
  config: Config,
  selection: RowSelection,
): Pruning {
  const { network } = build(architecture, config, 1, "evaluation");
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
  // Of a branch that is gone, no layer has channels left.
  const left = declare(architecture, { ...config, pruning: { channels, implants } });
  for (const name of network.sites.keys()) {
    const layer = name.replace(/(\.implant)?\.weight$/, "");
    if (left.has(`${layer}.weight`) || left.has(`${layer}.implant.weight`)) continue;
    channels[layer] = [];
    delete implants[layer];
  }
  return { channels, implants };
}

/** The slices of `parameters` that the declarations `after` ask for. */
function reduce(
  parameters: Parameters,
  before: ReadonlyMap<string, Declaration>,
  after: ReadonlyMap<string, Declaration>,
): Parameters {
  const reduced = new Map<string, Parameter>();
  for (const [name, declaration] of after) {
    const { shape, kind, channels } = declaration;
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
    reduced.set(name, { shape, kind, data });
  }
  return reduced;
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
