/** @file Convolutional networks in terms of layers, whether whole, pruned or with implants. */
import { EspalierError } from "@espalier/base";
import type { Mode, ModelGraph, ParameterSpec, Shift, Site } from "@espalier/core";
import {
  add,
  addChannels,
  averagePool,
  batchNorm,
  batchNormTraining,
  clip,
  concat,
  conv,
  gather,
  input,
  linear,
  maxPool,
  mean,
  multiply,
  place,
  relu,
  reshape,
  type Shape,
  scalar,
  sizeOf,
  slice,
  topologicalOrder,
  type Value,
} from "@espalier/graph";

/**
 * What pruning has left of the layers of a network, by the names of the layers. Layers that are not
 * mentioned are whole.
 */
export interface Pruning {
  /**
   * The channels that a convolution still has, as numbers of the dense network's channels, in the
   * order in which the weights hold them.
   */
  readonly channels: Readonly<Record<string, readonly number[]>>;
  /** How many of them, the last ones, are made by a 1×1 implant `NAME.implant.weight`. */
  readonly implants: Readonly<Record<string, number>>;
}

/** A layer whose outputs nothing but normalisation has changed. */
interface Producer {
  readonly name: string;
  /** How many of its rows are not implants. */
  readonly whole: number;
  readonly shift?: Shift | undefined;
}

/**
 * A tensor of channels on its way through the network. Without channels it is absent: a branch that
 * has lost all channels of a layer leads nowhere, and is left out where it would be joined.
 */
export interface Feature {
  /** [N, C, H, W]. */
  readonly value: Value;
  /** Which of the dense network's channels these are. Equal numbers mean equal channels. */
  readonly channels: readonly number[];
  /** The layers since the last join: without the channels of any of them the feature is absent. */
  readonly layers: readonly string[];
  /**
   * The layer whose output rows these are, until something else than normalisation happens.
   */
  readonly producer?: Producer | undefined;
}

/**
 * How the weight of a layer begins when nothing is loaded: normally distributed with the variance
 * 2 / fan (He et al. 2015, arXiv 1502.01852), or evenly from -1/√fan to 1/√fan, as PyTorch's layers do.
 * The fan in is the number of weights of a row, the fan out that of rows times the kernel's positions.
 */
export type WeightInitialization = "normal-fan-in" | "normal-fan-out" | "uniform-fan-in";

/** What a parameter is drawn from: a standard deviation, a bound, or a value for all. */
export type Initialization =
  | { readonly normal: number }
  | { readonly uniform: number }
  | { readonly value: number };

export interface Declaration extends ParameterSpec {
  readonly initialization: Initialization;
  /** For each axis: which of the dense network's channels its indices are; undefined: all of them. */
  readonly channels: readonly (readonly number[] | undefined)[];
}

/** A kernel that moves over the positions of every channel by itself. */
export interface DepthwiseConvLayer {
  readonly kernel: number;
  readonly stride?: number;
  readonly padding?: number;
  readonly bias?: boolean;
  /** Default: "normal-fan-in". */
  readonly initialization?: WeightInitialization;
}

export interface ConvLayer extends DepthwiseConvLayer {
  /** Output channels of the dense network. */
  readonly outputs: number;
  /** Of at least two input channels each. Layers in groups, and what feeds them, are left whole. */
  readonly groups?: number;
}

/** A window that moves over the positions of a feature. */
export interface PoolLayer {
  readonly kernel: number;
  readonly stride: number;
  readonly padding?: number;
}

const EPSILON = 1e-5;

function weightInitialization(kind: WeightInitialization, shape: Shape): Initialization {
  const row = sizeOf(shape.slice(1));
  if (kind === "uniform-fan-in") return { uniform: 1 / Math.sqrt(row) };
  const fan = kind === "normal-fan-in" ? row : shape[0] * sizeOf(shape.slice(2));
  return { normal: Math.sqrt(2 / fan) };
}

/** The positions of the channels `wanted` in `channels`. */
export function positionsOf(wanted: readonly number[], channels: readonly number[]): number[] {
  const index = new Map(channels.map((channel, position) => [channel, position]));
  return wanted.map((channel) => index.get(channel)!);
}

/** The channels `wanted` of a feature, in that order. */
function select({ value, channels }: Feature, wanted: readonly number[]): Value {
  const positions = positionsOf(wanted, channels);
  const [first] = positions;
  const consecutive = positions.every((position, i) => position === first + i);
  if (!consecutive) return gather(value, positions, 1);
  return wanted.length === channels.length
    ? value
    : slice(value, 1, first, first + positions.length);
}

function range(count: number): number[] {
  return [...Array(count).keys()];
}

/**
 * Builds a network layer by layer: declares the parameters that each needs, at the size that
 * pruning left them, and applies them. A family is a function that calls it.
 */
export class Network {
  readonly parameters = new Map<string, Value>();
  readonly declarations = new Map<string, Declaration>();
  readonly sites = new Map<string, Site>();
  readonly implantable = new Set<string>();
  readonly implants = new Set<string>();
  readonly emptiable = new Set<string>();
  readonly statistics = new Map<string, Value>();
  /** What statistics of the batch have normalised, by the names of the stored ones. */
  readonly #normalized = new Map<string, Value>();
  /** Where the rows of each weight have been, one place after the other. */
  readonly #marks = new Map<string, readonly Site[]>();
  readonly #mode: Mode;
  readonly #pruning: Pruning;

  constructor(mode: Mode, pruning: Pruning = { channels: {}, implants: {} }) {
    this.#mode = mode;
    this.#pruning = pruning;
  }

  /** The images that enter the network: [batch, channels, height, width]. */
  image(name: string, shape: Shape): Feature {
    return { value: input(name, shape), channels: range(shape[1]), layers: [] };
  }

  /**
   * A convolution `NAME.weight` [outputs, inputs / groups, kernel, kernel], with a bias if asked
   * for. Rows that are implants come from `NAME.implant.weight` [rows, inputs / groups, 1, 1].
   *
   * @throws EspalierError `invalid-graph` for as many groups as channels: see `depthwiseConv`.
   */
  conv(name: string, x: Feature, layer: ConvLayer): Feature {
    const { outputs, groups = 1 } = layer;
    const inputs = x.channels.length;
    if (groups > 1 && inputs > 0 && (inputs % groups !== 0 || inputs === groups)) {
      throw new EspalierError(
        "invalid-graph",
        `${name}: expected ${groups} groups of at least two channels each, got ${inputs} channels`,
      );
    }
    const channels = this.#pruning.channels[name] ?? range(outputs);
    const present = inputs === 0 ? [] : channels;
    const whole = present.length - (this.#pruning.implants[name] ?? 0);
    const { kernel, padding = 0 } = layer;
    // A 1×1 kernel is no smaller than its implant, and an off-centre one has no centre tap.
    const hasImplants = kernel > 1 && padding === (kernel - 1) / 2;
    if (hasImplants && present.length > 0) this.implantable.add(`${name}.weight`);
    return this.#convolution(name, x, layer, present, whole, (rows) => ({
      input: x.value,
      groups,
      shape: [rows.length, inputs / groups],
      columns: groups === 1 ? x.channels : undefined,
    }));
  }

  /**
   * A convolution of every channel by itself, `NAME.weight` [channels, 1, kernel, kernel], otherwise
   * as `conv`. Its channels are those of its input, as far as it has not lost them by itself. They
   * get no implants: most of a channel is in the layers around, and a second layer takes longer than
   * the smaller kernels save.
   */
  depthwiseConv(name: string, x: Feature, layer: DepthwiseConvLayer): Feature {
    const wanted = this.#pruning.channels[name] ?? x.channels;
    const held = new Set(x.channels);
    const channels = wanted.filter((channel) => held.has(channel));
    return this.#convolution(name, x, layer, channels, channels.length, (rows) => ({
      input: select(x, rows),
      groups: rows.length,
      shape: [rows.length, 1],
      columns: undefined,
    }));
  }

  /**
   * Batch normalisation `NAME.{weight,bias,running_mean,running_var}`, one number per channel.
   *
   * @param initialScale The first value of the weight.
   */
  batchNorm(name: string, x: Feature, initialScale = 1): Feature {
    const { channels, producer } = x;
    if (channels.length === 0) return x;
    const scale = this.#vector(`${name}.weight`, channels, "normalization", initialScale);
    const bias = this.#vector(`${name}.bias`, channels, "normalization", 0);
    const average = this.#vector(`${name}.running_mean`, channels, "statistic", 0);
    const variance = this.#vector(`${name}.running_var`, channels, "statistic", 1);
    const normalization = {
      ...{ variance: `${name}.running_var`, scale: `${name}.weight`, bias: `${name}.bias` },
      epsilon: EPSILON,
    };
    const shift = { parameter: `${name}.running_mean`, sign: -1, normalization } as const;
    const shifted = producer && { ...producer, shift: producer.shift ?? shift };
    if (this.#mode === "evaluation") {
      const value = batchNorm(x.value, { scale, bias, mean: average, variance }, EPSILON);
      return this.#mark({ ...x, value, producer: shifted });
    }
    const normalized = batchNormTraining(x.value, { scale, bias }, EPSILON);
    const count = sizeOf(x.value.shape) / x.channels.length;
    for (const stored of ["running_mean", "running_var"]) {
      this.#normalized.set(`${name}.${stored}`, normalized.result);
    }
    this.statistics.set(`${name}.running_mean`, normalized.mean);
    // Stored variances are unbiased, as in PyTorch.
    this.statistics.set(
      `${name}.running_var`,
      multiply(normalized.variance, scalar(count / Math.max(1, count - 1))),
    );
    return this.#mark({ ...x, value: normalized.result, producer: shifted });
  }

  relu({ value, channels, layers }: Feature): Feature {
    return { value: channels.length === 0 ? value : relu(value), channels, layers };
  }

  /** ReLU that stops at 6 (MobileNet's). */
  relu6({ value, channels, layers }: Feature): Feature {
    return { value: channels.length === 0 ? value : clip(value, 0, 6), channels, layers };
  }

  /**
   * The sum of branches. Where they do not have the same channels, the result has those of all, in
   * ascending order, and a branch counts as zero where it has none.
   */
  join(joined: readonly Feature[]): Feature {
    const branches = joined.filter(({ channels }) => channels.length > 0);
    if (branches.length > 1) {
      // Not the last layer of a branch, which makes the channels of the sum, nor those that the
      // branches have in common.
      const own = branches.map(({ layers }) =>
        layers
          .slice(0, -1)
          .filter((layer) => branches.some((other) => !other.layers.includes(layer))),
      );
      // Something has to be left to be added up: where all branches could go, the first stays.
      const staying = own.every((layers) => layers.length > 0) ? 1 : 0;
      for (const layer of own.slice(staying).flat()) {
        this.emptiable.add(`${layer}.weight`).add(`${layer}.implant.weight`);
      }
    }
    const [first = joined[0]] = branches;
    if (branches.length <= 1) return { ...first, layers: [] };
    const alike = branches.every(({ channels }) => channels.join() === first.channels.join());
    const channels = alike
      ? first.channels
      : [...new Set(branches.flatMap((branch) => branch.channels))].sort((a, b) => a - b);
    const values = branches.map((branch) =>
      alike
        ? branch.value
        : place(branch.value, positionsOf(branch.channels, channels), channels.length, 1),
    );
    return { value: values.reduce((a, b) => add(a, b)), channels, layers: [] };
  }

  /** Every `stride`-th row and column, as channels from `first` on of a wider tensor. */
  subsample(x: Feature, stride: number, first: number): Feature {
    const [, , height, width] = x.value.shape;
    const value = slice(slice(x.value, 2, 0, height, stride), 3, 0, width, stride);
    return { ...x, value, channels: x.channels.map((channel) => channel + first) };
  }

  /** The largest element of every window. */
  maxPool(x: Feature, { kernel, stride, padding = 0 }: PoolLayer): Feature {
    const value = maxPool(x.value, {
      kernel: [kernel, kernel],
      strides: [stride, stride],
      padding: [padding, padding, padding, padding],
    });
    return { ...x, value, producer: undefined };
  }

  /** The average of every window; nothing is padded. */
  averagePool(x: Feature, { kernel, stride }: Omit<PoolLayer, "padding">): Feature {
    const value = averagePool(x.value, {
      kernel: [kernel, kernel],
      strides: [stride, stride],
      padding: [0, 0, 0, 0],
    });
    return { ...x, value, producer: undefined };
  }

  /** The average over all positions: [N, C]. */
  globalAverage(x: Feature): Feature {
    return { ...x, value: mean(x.value, [2, 3]), producer: undefined };
  }

  /** All positions of all channels as channels: [N, C H W]. */
  flatten(x: Feature): Feature {
    if (x.channels.length === 0) return x;
    const [batch, , height, width] = x.value.shape;
    const positions = range(height * width);
    const channels = x.channels.flatMap((channel) =>
      positions.map((position) => channel * positions.length + position),
    );
    const value = reshape(x.value, [batch, channels.length]);
    return { ...x, value, channels, producer: undefined };
  }

  /** A linear layer `NAME.{weight,bias}` on [N, C]: [N, outputs]. The bias begins evenly if the weight does. */
  linear(
    name: string,
    x: Feature,
    outputs: number,
    initialization: WeightInitialization = "uniform-fan-in",
  ): Feature {
    const inputs = x.channels.length;
    if (inputs === 0) {
      throw new EspalierError(
        "mismatched-model",
        `${name}: expected channels to reach it, got none`,
      );
    }
    const channels = this.#pruning.channels[name] ?? range(outputs);
    const layers = [...x.layers, name];
    if (channels.length === 0) return { value: x.value, channels, layers };
    const shape = [channels.length, inputs];
    const drawn = weightInitialization(initialization, shape);
    const w = this.#parameter(`${name}.weight`, {
      shape,
      kind: "weight",
      initialization: drawn,
      channels: [channels, x.channels],
    });
    const b = this.#parameter(`${name}.bias`, {
      shape: [channels.length],
      kind: "bias",
      initialization: "uniform" in drawn ? drawn : { value: 0 },
      channels: [channels],
    });
    const value = add(linear(x.value, w), b);
    const shift = { parameter: `${name}.bias`, sign: 1 } as const;
    const producer = { name, whole: channels.length, shift };
    return this.#mark({ value, channels, layers, producer });
  }

  /** The finished graph, without layers that nothing reads: those before one that has no channels left. */
  graph(image: Feature, logits: Value): ModelGraph {
    const reached = new Set(topologicalOrder([logits]));
    for (const [name, parameter] of this.parameters) {
      if (reached.has(this.#normalized.get(name) ?? parameter)) continue;
      for (const of of [this.parameters, this.declarations, this.sites, this.statistics]) {
        of.delete(name);
      }
      for (const of of [this.implantable, this.implants, this.emptiable]) of.delete(name);
    }
    if (this.#mode === "evaluation") {
      for (const [name, site] of undivided(this.#marks, reached)) this.sites.set(name, site);
    }
    const { parameters, sites, implantable, implants, emptiable, statistics } = this;
    const inputs = { [image.value.attributes.name]: image.value };
    const fittable = sites;
    return {
      ...{ inputs, parameters, logits, sites, fittable, implantable, implants, emptiable },
      statistics,
    };
  }

  /**
   * A convolution whose first `whole` channels have kernels, and whose others are implants.
   *
   * @param operandsOf For some rows of the weight: what is convolved, in how many groups, the first
   *   two axes of their kernels, and which channels the second of them stands for.
   */
  #convolution(
    name: string,
    x: Feature,
    { kernel, stride = 1, padding = 0, bias, initialization = "normal-fan-in" }: DepthwiseConvLayer,
    channels: readonly number[],
    whole: number,
    operandsOf: (rows: readonly number[]) => {
      readonly input: Value;
      readonly groups: number;
      readonly shape: Shape;
      readonly columns: readonly number[] | undefined;
    },
  ): Feature {
    const layers = [...x.layers, name];
    if (channels.length === 0) return { value: x.value, channels, layers };
    const strides = [stride, stride] as const;
    const part = (of: string, rows: readonly number[], size: number, pad: number) => {
      const { input, groups, shape: matrix, columns } = operandsOf(rows);
      const shape = [...matrix, size, size];
      const weight = this.#parameter(`${of}.weight`, {
        shape,
        kind: "weight",
        initialization: weightInitialization(initialization, shape),
        channels: [rows, columns, undefined, undefined],
      });
      return conv(input, weight, { strides, padding: [pad, pad, pad, pad], groups });
    };
    const parts: Value[] = [];
    if (whole > 0) parts.push(part(name, channels.slice(0, whole), kernel, padding));
    if (whole < channels.length) {
      // A 1×1 kernel sees what the centre tap of the k×k kernel saw.
      parts.push(part(`${name}.implant`, channels.slice(whole), 1, 0));
      this.implants.add(`${name}.implant.weight`);
    }
    let value = concat(parts, 1);
    if (bias) value = addChannels(value, this.#vector(`${name}.bias`, channels, "bias", 0));
    const shift = bias ? ({ parameter: `${name}.bias`, sign: 1 } as const) : undefined;
    return this.#mark({ value, channels, layers, producer: { name, whole, shift } });
  }

  #parameter(name: string, declaration: Declaration): Value {
    const value = input(name, declaration.shape);
    this.parameters.set(name, value);
    this.declarations.set(name, declaration);
    return value;
  }

  /** One number for each of `channels`. */
  #vector(
    name: string,
    channels: readonly number[],
    kind: Declaration["kind"],
    initial: number,
  ): Value {
    const shape = [channels.length];
    const initialization = { value: initial };
    return this.#parameter(name, { shape, kind, initialization, channels: [channels] });
  }

  /** `x` is where its producer's rows are now. */
  #mark(x: Feature): Feature {
    const { value, channels, producer } = x;
    if (producer === undefined) return x;
    const { name: layer, whole, shift } = producer;
    const rows = { value, layer, shift };
    if (whole > 0) {
      const own = channels.slice(0, whole);
      this.#place(`${layer}.weight`, { ...rows, offset: 0, channels: own });
    }
    if (whole < channels.length) {
      const own = channels.slice(whole);
      this.#place(`${layer}.implant.weight`, { ...rows, offset: whole, channels: own });
    }
    return x;
  }

  #place(weight: string, site: Site): void {
    this.sites.set(weight, site);
    this.#marks.set(weight, [...(this.#marks.get(weight) ?? []), site]);
  }
}

/**
 * Of the places of each weight's rows the last that all that is made of them goes through. What is
 * normalised behind a fork is not all of them: a branch that reads them as they were sees nothing of it.
 */
function* undivided(
  marks: ReadonlyMap<string, readonly Site[]>,
  reached: ReadonlySet<Value>,
): Generator<[string, Site]> {
  const readers = new Map<Value, number>();
  for (const { inputs } of reached) {
    for (const operand of new Set(inputs)) readers.set(operand, (readers.get(operand) ?? 0) + 1);
  }
  for (const [name, places] of marks) {
    const fork = places.findIndex(({ value }) => (readers.get(value) ?? 0) > 1);
    const site = places.at(fork);
    if (site !== undefined && reached.has(site.value)) yield [name, site];
  }
}
