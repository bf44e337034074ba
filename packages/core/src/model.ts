/** @file What a model and a family of models are to everything that prunes, tunes and reports. */
import type { Shape, Value } from "@espalier/graph";
import type { Objective } from "./objective.ts";
import type { Random } from "./random.ts";

/** JSON that describes a model completely but for its parameters. */
export type ModelConfig = Readonly<Record<string, unknown>> & {
  /** The name of the family, as Hugging Face's configurations call it. */
  readonly model_type: string;
};

/**
 * What a parameter is for. Weight decay and sensitivity apply to weights; statistics (running means
 * and variances) are not trained and not counted as parameters.
 */
export type ParameterKind = "weight" | "bias" | "normalization" | "statistic";

export interface ParameterSpec {
  readonly shape: Shape;
  readonly kind: ParameterKind;
}

export interface Parameter extends ParameterSpec {
  readonly data: Float32Array;
}

export type Parameters = ReadonlyMap<string, Parameter>;

/** Whether normalisation uses stored statistics or those of the batch. */
export type Mode = "evaluation" | "training";

/** How raw samples become inputs of the model. */
export type Preprocessing = ImageInput | TextInput;

export interface ImageInput extends ImagePreprocessing {
  readonly kind: "image";
}

/** One or two sentences as `input_ids`, `attention_mask` and `token_type_ids`, int64 [batch, length]. */
export interface TextInput {
  readonly kind: "text";
  /**
   * The parsed `tokenizer.json` and `tokenizer_config.json` of the checkpoint; undefined where it came
   * without them.
   */
  readonly tokenizer: { readonly json: object; readonly config: object } | undefined;
  /** Tokens of a sample at most, those that mark beginning and end included. */
  readonly maxLength: number;
  /** Whether longer samples are cut, as the checkpoint's tokenizer asks for, or refused. */
  readonly truncates: boolean;
  /** The numbers of tokens that the model knows are below it. */
  readonly vocabulary: number;
  /** Likewise the types of tokens; 0: it does not tell them apart. */
  readonly types: number;
  /** What fills up samples that are shorter than their batch. */
  readonly padding: { readonly token: number; readonly type: number };
}

export interface ImagePreprocessing {
  /** [channels, height, width]. */
  readonly shape: readonly [number, number, number];
  /** Per channel, of pixels scaled to [0, 1]. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /**
   * The share of an image's shorter side that is left when its centre is cut out, where images are of
   * other sizes than `shape`; default: 1.
   */
  readonly crop?: number | undefined;
}

/** What a component is. Kinds differ in what they cost and compute; see the scope "kind" of plans. */
export type ComponentKind = "channel" | "head" | "neuron";

export const componentKinds: readonly ComponentKind[] = ["channel", "head", "neuron"];

/** What the rows of a weight make. */
export interface Layer {
  /** Weights of one layer make different channels of it. */
  readonly layer: string;
  /** Numbers of the channels that the rows make, which pruning does not change. */
  readonly channels: readonly number[];
  /** Row r of the weight makes channel `offset` + r, if one row makes a channel. */
  readonly offset: number;
  /** Where a constant per channel can be added to what the weight makes. */
  readonly shift?: Shift | undefined;
}

/** Where a component's output can be scaled: of a convolution after normalisation. */
export interface Site extends Layer {
  /** [batch, channels, …]. */
  readonly value: Value;
  /** The axis of `value` that the channels are on; default 1. */
  readonly axis?: number | undefined;
  /** How many rows in a row make one channel of `value` together; default 1. */
  readonly span?: number | undefined;
  /**
   * Where `span` is given: all weights and biases whose rows make the channels, those of this weight
   * too. Of several channels coupling shows as much; of a single one it cannot.
   */
  readonly rows?: readonly string[] | undefined;
  /** Default: "channel". */
  readonly kind?: ComponentKind | undefined;
}

/** A parameter with one number per channel of a layer. */
export interface Shift {
  readonly parameter: string;
  /** Whether the parameter is added to the outputs of the layer's weights, or subtracted. */
  readonly sign: 1 | -1;
  /** Where it is the mean that stored statistics normalise the outputs with. */
  readonly normalization?: Normalization | undefined;
}

/** (x − mean) / √(variance + epsilon) · scale + bias, per channel: names of the parameters but the mean. */
export interface Normalization {
  readonly variance: string;
  readonly scale: string;
  readonly bias: string;
  readonly epsilon: number;
}

/** A model applied to one batch of named inputs, as a graph. */
export interface ModelGraph {
  readonly inputs: Readonly<Record<string, Value>>;
  /** Every parameter as an input of the graph, under its name. */
  readonly parameters: ReadonlyMap<string, Value>;
  /** [batch, classes]; [batch, 1] for regression; features of any number without a task. */
  readonly logits: Value;
  /**
   * Of networks whose layers have outputs of one shape that pruning does not change: those of every
   * layer, the first layer's first, [batch, …]; of sequences [batch, length, …], or [batch, 1, …] where
   * the first position alone is used.
   */
  readonly hidden?: readonly Value[] | undefined;
  /** Where the output rows of a weight enter the rest of the network. Keys are names of weights. */
  readonly sites: ReadonlyMap<string, Site>;
  /**
   * Weights that can be fitted anew where what they read has changed, one row making one channel. One
   * that pruning has left nothing to read is named all the same if it has a shift.
   */
  readonly fittable: ReadonlyMap<string, Layer>;
  /** Of sequences: [batch, length], 1 where a sample has something and 0 where it was filled up. */
  readonly mask?: Value | undefined;
  /** Weights whose rows can be replaced by smaller implants. */
  readonly implantable: ReadonlySet<string>;
  /** Weights, and biases, whose rows are implants: with zeros in them these put out nothing. */
  readonly implants: ReadonlySet<string>;
  /**
   * Of implantable weights: what their implants can be fitted to, sums over the positions of each
   * sample, [batch, …] each; see Model.prune.
   */
  readonly observations?: ReadonlyMap<string, readonly Value[]> | undefined;
  /** Weights that may lose all their rows: a branch of the network goes with them. */
  readonly emptiable: ReadonlySet<string>;
  /** In training mode: the batch's value of each statistic. */
  readonly statistics: ReadonlyMap<string, Value>;
}

/** The rows that a weight keeps, in their new order. */
export interface SelectedRow {
  readonly row: number;
  readonly implant: boolean;
  /** Of an implant for a channel that several rows make: how many rows it has. */
  readonly rank?: number | undefined;
}

/**
 * Names of weights and the rows that each keeps: at least one, unless the weight is emptiable. Where
 * several rows make one channel, a channel counts as one row.
 */
export type RowSelection = ReadonlyMap<string, readonly SelectedRow[]>;

/** By weight: the sums over all samples of what a graph names as its observations. */
export type Observed = ReadonlyMap<string, readonly Float64Array[]>;

/** A network with its parameters. Immutable: pruning and training give new models. */
export interface Model {
  readonly family: ModelFamily;
  readonly config: ModelConfig;
  readonly parameters: Parameters;
  readonly preprocessing: Preprocessing;
  /** What the logits stand for; none for a model without a task. */
  readonly classes: readonly string[];
  /** What training minimises; default: classification. */
  readonly objective?: Objective | undefined;
  /** Files that travel with the model unchanged, such as those of its tokenizer. */
  readonly files?: ReadonlyMap<string, Uint8Array> | undefined;
  /**
   * @param length Of sequences: positions that all samples of the batch are filled up to; default: as
   *   many as costs are stated for. Other models take no notice of it.
   */
  build(batch: number, mode: Mode, length?: number): ModelGraph;
  /**
   * The model with some rows of its weights alone, in the order given, and everything that goes with
   * the others removed. Weights that `selection` does not name stay whole. Rows marked as implants
   * are replaced by the centre tap of their kernels, or by factors of the rank asked for.
   *
   * @param observed What such factors are fitted to; without it, to the weights alone.
   */
  prune(selection: RowSelection, observed?: Observed): Model;
  /** The same network with other parameters of the same names and shapes. */
  withParameters(parameters: Parameters): Model;
  /**
   * A model that computes the same in the form that it had before any pruning, which other software
   * knows: the model itself where nothing was removed. Undefined for families without such a form.
   */
  readonly denseEquivalent?: (() => Model) | undefined;
}

/** A checkpoint as read from files, before anything is known about it. */
export interface CheckpointSource {
  /** The parsed `config.json` beside the tensors, if there is one. */
  readonly config: ModelConfig | undefined;
  readonly tensors: ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }>;
  /** The files beside the tensors that belong to some family; see ModelFamily. */
  readonly files?: ReadonlyMap<string, Uint8Array> | undefined;
  /** Where it came from, for messages. */
  readonly path: string;
}

/** What the outputs of a model shall be. */
export interface Head {
  /** One name for a number that is to be predicted. */
  readonly classes: readonly string[];
  readonly objective: Objective["name"];
}

/** A kind of network: recognises checkpoints, and makes models from them or from scratch. */
export interface ModelFamily {
  readonly name: string;
  /** Names of the ready-made networks, such as "resnet20-cifar10", with their configurations. */
  readonly presets: Readonly<Record<string, ModelConfig>>;
  /**
   * Whether logits are piecewise linear in the weights of each layer, given everything else. Then
   * exact Gauss-Newton traces are exact Hessian traces (Botev, Ritter and Barber 2017).
   */
  readonly piecewiseLinear: boolean;
  /** The name of the ready-made network that `config` describes, if it is one. */
  presetOf(config: ModelConfig): string | undefined;
  /** The configuration of a checkpoint of this family; undefined for any other. */
  detect(source: CheckpointSource): ModelConfig | undefined;
  /**
   * @throws EspalierError `mismatched-model` naming a tensor that is missing, left over or of the
   *   wrong shape; `not-finite` naming one with NaN or infinity.
   */
  load(source: CheckpointSource, config: ModelConfig): Model;
  /** `config` for other classes than its own. */
  withClasses(config: ModelConfig, classes: readonly string[]): ModelConfig;
  /** A fresh model, its parameters drawn as the family's literature says. */
  initialize(config: ModelConfig, random: Random): Model;
  /** `model` with fresh last layers for another task, the rest as it is. */
  readonly withHead?: ((model: Model, head: Head, random: Random) => Model) | undefined;
  /** Names of files beside a checkpoint that its models need or carry along. */
  readonly files?: readonly string[] | undefined;
}
