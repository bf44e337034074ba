/** @file Families of encoders for text, each defined by its configuration and the names of its tensors. */
import { EspalierError } from "@espalier/base";
import {
  type CheckpointSource,
  checkConfig,
  collectParameters,
  type Head,
  type Model,
  type ModelConfig,
  type ModelFamily,
  type NamedTensor,
  objectives,
  type Parameter,
  type Parameters,
  type Random,
  type RowSelection,
  type SelectedRow,
} from "@espalier/core";
import { sizeOf, type Value } from "@espalier/graph";
import * as z from "zod";
import { fillUp } from "./dense-equivalent.ts";
import {
  type Activation,
  activationNames,
  type Declaration,
  type Dimensions,
  Encoder,
  type EncoderNames,
  headBatches,
  type Pruning,
  whole,
} from "./encoder.ts";
import { prunedParameters } from "./pruned-parameters.ts";
import { textInput, tokenizerFiles } from "./tokenizer.ts";

/** What follows the encoder: a layer on the first token, and the layer that gives the outputs. */
export interface HeadParts {
  readonly hidden: boolean;
  readonly output: boolean;
}

/** The `config.json` of an encoder: that of its family at Hugging Face, and what is ours. */
export interface TextConfig extends ModelConfig {
  readonly id2label?: Readonly<Record<string, string>> | undefined;
  readonly num_labels?: number | undefined;
  /** Names of the classes at Hugging Face that the checkpoint was saved as. */
  readonly architectures?: readonly string[] | undefined;
  /** The token that fills up samples. */
  readonly pad_token_id?: number | null | undefined;
  /** Which parts of a head the checkpoint has; found out from its tensors. */
  readonly head?: HeadParts | undefined;
  /** What is left of each layer; absent where the model is whole. */
  readonly pruning?: Pruning | undefined;
}

/** What a family of encoders must say of itself. */
export interface Architecture<Config extends TextConfig> {
  /** Also the `model_type` of its configurations. */
  readonly name: string;
  /** What the names of its classes at Hugging Face begin with, such as "Bert". */
  readonly className: string;
  /** Checks a configuration, which may come from anywhere. */
  readonly schema: z.ZodType<Config>;
  dimensions(config: Config): Dimensions;
  readonly names: EncoderNames;
  /** What checkpoints of the encoder alone leave out of the names of its tensors. */
  readonly prefix: string;
  /** The layers of the head. */
  readonly head: {
    readonly hidden: string;
    readonly activation: Activation;
    readonly output: string;
  };
  /** Tensors of heads for other purposes, which are left out. */
  readonly ignored: RegExp;
}

// A model with more is a mistake or an attack: its graph would fill the memory.
const MOST = 1 << 24;

export const size = z.int().min(1).max(MOST);

const layer = z.string().regex(/^\d+$/);

const units = z
  .array(z.int().min(0).max(MOST))
  .refine((list) => new Set(list).size === list.length, { error: "expected distinct numbers" });

const kept = z.record(layer, units);

/** The fields that all encoders share, to be extended with a family's own. */
export const textConfig = z.looseObject({
  id2label: z.record(z.string(), z.string()).optional(),
  num_labels: size.optional(),
  architectures: z
    .array(z.string())
    .nullish()
    .transform((names) => names ?? undefined),
  head: z.object({ hidden: z.boolean(), output: z.boolean() }).optional(),
  pruning: z
    .object({
      heads: kept,
      neurons: kept,
      implants: z.record(layer, z.record(z.string().regex(/^[1-9]\d*$/), units)).default({}),
    })
    .optional(),
});

/** Configurations that differ in nothing but names of fields agree in these values. */
export const activationName = z.preprocess(
  (name) => (name === "gelu_pytorch_tanh" ? "gelu_new" : name === "swish" ? "silu" : name),
  z.enum(activationNames),
);

// Heads for other purposes whose tensors are called as those for sequence classification are.
const otherHeads = /For(TokenClassification|MultipleChoice)$/;

// Costs are stated for samples of this many tokens, as GLUE's are cut to.
const STATED_LENGTH = 128;

export function defineTextFamily<Config extends TextConfig>(
  architecture: Architecture<Config>,
): ModelFamily {
  const { name } = architecture;
  const family: ModelFamily = {
    name,
    presets: {},
    piecewiseLinear: false,
    files: tokenizerFiles,
    presetOf: () => undefined,
    detect: ({ config }) => (config?.model_type === name ? config : undefined),
    load: (source, config) => {
      const tensors = canonicalTensors(architecture, source);
      const has = (layer: string) => tensors.has(`${layer}.weight`);
      const { hidden, output } = architecture.head;
      const head = { hidden: has(hidden), output: has(output) };
      const rows = head.output ? tensors.get(`${output}.weight`)!.tensor.shape[0] : undefined;
      const labels = rows === undefined ? {} : { num_labels: rows };
      const checked = checkConfig(architecture.schema, { ...config, head, ...labels }, source.path);
      const declarations = declareFrom(source.path, architecture, checked);
      const parameters = collectParameters(source.path, tensors, declarations);
      return createModel(family, architecture, checked, parameters, source.files);
    },
    withClasses: (config, classes) => ({ ...config, ...labelsOf(classes) }),
    initialize: (config, random) => {
      const checked = checkConfig(architecture.schema, config, name);
      const parameters = new Map(
        [...declare(architecture, checked)].map(([key, declaration]) => [
          key,
          draw(declaration, random.stream("initialize", key)),
        ]),
      );
      return createModel(family, architecture, checked, parameters, undefined);
    },
    withHead: (model, { classes, objective }: Head, random) => {
      const config = {
        ...(model.config as Config),
        ...labelsOf(classes),
        architectures: [`${architecture.className}ForSequenceClassification`],
        problem_type: objective === "regression" ? objective : "single_label_classification",
        head: { hidden: true, output: true },
      };
      const fresh = `${architecture.head.output}.`;
      const parameters = new Map(
        [...declare(architecture, config)].map(([key, declaration]) => [
          key,
          (key.startsWith(fresh) ? undefined : model.parameters.get(key)) ??
            draw(declaration, random.stream("head", key)),
        ]),
      );
      return createModel(family, architecture, config, parameters, model.files);
    },
  };
  return family;
}

function labelsOf(classes: readonly string[]) {
  return {
    num_labels: classes.length,
    id2label: Object.fromEntries(classes.map((label, i) => [String(i), label])),
    label2id: Object.fromEntries(classes.map((label, i) => [label, i])),
  };
}

/** The classes of `config`; none without a task. */
function classesOf({ num_labels, id2label, head }: TextConfig): string[] {
  const count = head?.output ? (num_labels ?? Object.keys(id2label ?? {}).length) : 0;
  return Array.from({ length: count }, (_, i) => id2label?.[String(i)] ?? `LABEL_${i}`);
}

/** An encoder with its head, and what it puts out after each layer. */
export function build<Config extends TextConfig>(
  { dimensions, names, head }: Architecture<Config>,
  config: Config,
  batch: number,
  length: number,
): { encoder: Encoder; hidden: Value[]; logits: Value } {
  const sizes = dimensions(config);
  const encoder = new Encoder(sizes, names, config.pruning);
  const hidden = encoder.encode(batch, length);
  let logits = encoder.first(hidden[hidden.length - 1]);
  if (config.head?.hidden)
    logits = encoder.dense(head.hidden, logits, sizes.width, head.activation);
  if (config.head?.output) logits = encoder.dense(head.output, logits, classesOf(config).length);
  return { encoder, hidden, logits };
}

function declare<Config extends TextConfig>(
  architecture: Architecture<Config>,
  config: Config,
): ReadonlyMap<string, Declaration> {
  return build(architecture, config, 1, 1).encoder.declarations;
}

/** As `declare`, for a configuration that came from the file `path` and may contradict itself. */
function declareFrom<Config extends TextConfig>(
  path: string,
  architecture: Architecture<Config>,
  config: Config,
): ReadonlyMap<string, Declaration> {
  const { layers, heads, neurons, width, ...sizes } = architecture.dimensions(config);
  const fail = (field: string, what: string): never => {
    throw new EspalierError("mismatched-model", `${path}: config.${field}: ${what}`, {
      path,
      field,
    });
  };
  if (config.head?.output) expectClassifier(architecture, config, fail);
  // Every head and neuron of every layer becomes an object, long before tensors are compared.
  if (layers * (heads + neurons + width) > MOST) {
    throw new EspalierError(
      "mismatched-model",
      `${path}: config: expected a model of ordinary size, got ${layers} layers of ${heads} heads and ${neurons} neurons, ${width} wide`,
      { path },
    );
  }
  if (width % heads !== 0) {
    // Families call the two fields differently.
    throw new EspalierError(
      "mismatched-model",
      `${path}: config: expected a width that its ${heads} heads divide, got ${width}`,
      { path },
    );
  }
  if (sizes.positions <= sizes.firstPosition) {
    const { positions, firstPosition } = sizes;
    fail("max_position_embeddings", `expected more than ${firstPosition}, got ${positions}`);
  }
  const { pad_token_id: padding } = config;
  if (padding != null && padding >= sizes.vocabulary) {
    fail("pad_token_id", `expected a token below vocab_size ${sizes.vocabulary}, got ${padding}`);
  }
  const { pruning = whole } = config;
  const check = (field: string, layer: string, units: readonly number[], count: number) => {
    if (Number(layer) >= layers) fail(field, `expected a layer below ${layers}`);
    const wrong = units.find((unit) => unit >= count);
    if (wrong !== undefined) fail(field, `expected numbers below ${count}, got ${wrong}`);
  };
  for (const [kind, count] of [
    ["heads", heads],
    ["neurons", neurons],
  ] as const) {
    for (const [layer, units] of Object.entries(pruning[kind])) {
      check(`pruning.${kind}.${layer}`, layer, units, count);
    }
  }
  for (const [layer, implants] of Object.entries(pruning.implants)) {
    const taken = new Set(pruning.heads[layer] ?? Array.from({ length: heads }, (_, i) => i));
    for (const [rank, units] of Object.entries(implants)) {
      const field = `pruning.implants.${layer}.${rank}`;
      check(field, layer, units, heads);
      if (Number(rank) > width / heads) {
        fail(field, `expected a rank up to ${width / heads}, the size of a head`);
      }
      const twice = units.find((unit) => taken.has(unit));
      if (twice !== undefined) fail(field, `expected heads that are not elsewhere, got ${twice}`);
      for (const unit of units) taken.add(unit);
    }
  }
  return declare(architecture, config);
}

/** Whether what the configuration says of a head is true of the tensors of one for sequences. */
function expectClassifier<Config extends TextConfig>(
  { className, head: { output } }: Architecture<Config>,
  { architectures = [], id2label, num_labels: rows }: Config,
  fail: (field: string, what: string) => never,
): void {
  const other = architectures.find((each) => otherHeads.test(each));
  if (other !== undefined) {
    fail("architectures", `expected ${className}ForSequenceClassification, got ${other}`);
  }
  const labels = Object.keys(id2label ?? {}).length;
  if (id2label !== undefined && labels !== rows) {
    fail("id2label", `expected ${rows} labels, the rows of ${output}.weight, got ${labels}`);
  }
}

function createModel<Config extends TextConfig>(
  family: ModelFamily,
  architecture: Architecture<Config>,
  config: Config,
  parameters: Parameters,
  files: Model["files"],
): Model {
  const { vocabulary, ...sizes } = architecture.dimensions(config);
  const positions = sizes.positions - sizes.firstPosition;
  const classes = classesOf(config);
  const regression = classes.length === 1 || config.problem_type === "regression";
  let declarations: ReadonlyMap<string, Declaration> | undefined;
  const remake = (changed: Config, kept: Parameters) =>
    createModel(family, architecture, changed, kept, files);
  const model: Model = {
    family,
    config,
    parameters,
    preprocessing: textInput(files, { positions, vocabulary, types: sizes.types }, config),
    classes,
    objective: regression ? objectives.regression : objectives.classification,
    files,
    build: (batch, _mode, length = Math.min(STATED_LENGTH, positions)) => {
      const { encoder, hidden, logits } = build(architecture, config, batch, length);
      const [_embedded, ...layers] = hidden;
      return encoder.graph(logits, layers);
    },
    prune: (selection, observed) => {
      const pruned = { ...config, pruning: pruningOf(architecture, config, selection) };
      // A plan prunes one model many times.
      declarations ??= declare(architecture, config);
      const before = { parameters, declarations, pruning: config.pruning ?? whole, observed };
      const after = { declarations: declare(architecture, pruned), pruning: pruned.pruning };
      const sizes = architecture.dimensions(config);
      return remake(pruned, prunedParameters(sizes, architecture.names, before, after));
    },
    withParameters: (replaced) => remake(config, replaced),
    denseEquivalent: () => {
      if (config.pruning === undefined) return model;
      const { pruning: _, ...rest } = config;
      const dense = rest as Config;
      const whole = fillUp(parameters, declare(architecture, config), declare(architecture, dense));
      return remake(dense, whole);
    },
  };
  return model;
}

/** The tensors of a checkpoint by the names that they have in our models. */
function canonicalTensors<Config extends TextConfig>(
  { prefix, head, ignored }: Architecture<Config>,
  { tensors }: CheckpointSource,
): Map<string, NamedTensor> {
  const own = [prefix, `${head.hidden}.`, `${head.output}.`];
  const found = new Map<string, NamedTensor>();
  for (const [name, tensor] of tensors) {
    // Checkpoints made from TensorFlow's call the scale and shift of a normalisation so.
    const modern = name.replace(/\.gamma$/, ".weight").replace(/\.beta$/, ".bias");
    const full = own.some((start) => modern.startsWith(start)) ? modern : prefix + modern;
    if (ignored.test(full.slice(full.startsWith(prefix) ? prefix.length : 0))) continue;
    found.set(full, { name, tensor });
  }
  return found;
}

function draw({ shape, kind, initialization }: Declaration, random: Random): Parameter {
  const data = new Float32Array(sizeOf(shape));
  if ("value" in initialization) data.fill(initialization.value);
  else for (let i = 0; i < data.length; i++) data[i] = random.normal() * initialization.normal;
  return { shape, kind, data };
}

/** What is left of each layer when only the selected rows are. */
function pruningOf<Config extends TextConfig>(
  { dimensions, names }: Architecture<Config>,
  config: Config,
  selection: RowSelection,
): Pruning {
  const sizes = dimensions(config);
  const before = config.pruning ?? whole;
  const heads = { ...before.heads };
  const implants = { ...before.implants };
  const neurons = { ...before.neurons };
  const rest = new Map(selection);
  /** The selected rows of a weight, with the numbers of the units that they are. */
  const take = (name: string, units: readonly number[]) => {
    const weight = `${name}.weight`;
    const rows = rest.get(weight) ?? units.map((_, row): SelectedRow => ({ row, implant: false }));
    rest.delete(weight);
    return rows.map(({ row, ...selected }) => ({ unit: units[row], weight, ...selected }));
  };
  for (let layer = 0; layer < sizes.layers; layer++) {
    const { value, up } = names.layer(layer);
    const left: number[] = [];
    const made = new Map<number, number[]>();
    for (const { suffix, heads: held, rank: own } of headBatches(sizes, before, layer)) {
      for (const { unit, weight, implant, rank } of take(`${value}${suffix}`, held)) {
        if (suffix === "" && !implant) {
          left.push(unit);
          continue;
        }
        const of = implant ? rank : own;
        if (of === undefined) {
          throw new EspalierError(
            "invalid-argument",
            `${weight}: expected a rank of the implants`,
            {
              parameter: weight,
            },
          );
        }
        made.set(of, [...(made.get(of) ?? []), unit]);
      }
    }
    setUnlessWhole(heads, layer, left, sizes.heads);
    if (made.size > 0) implants[layer] = Object.fromEntries(made);
    else delete implants[layer];
    const held = before.neurons[layer] ?? Array.from({ length: sizes.neurons }, (_, i) => i);
    const kept = take(up, held).map(({ unit }) => unit);
    setUnlessWhole(neurons, layer, kept, sizes.neurons);
  }
  const [unknown] = rest.keys();
  if (unknown !== undefined) {
    throw new EspalierError(
      "invalid-argument",
      `${unknown}: expected a weight whose rows can be removed`,
      { parameter: unknown },
    );
  }
  return { heads, implants, neurons };
}

/** A layer that is whole needs no mention. */
function setUnlessWhole(
  kept: Record<string, readonly number[]>,
  layer: number,
  left: readonly number[],
  count: number,
): void {
  if (left.length < count || left.some((unit, i) => unit !== i)) kept[layer] = left;
}
