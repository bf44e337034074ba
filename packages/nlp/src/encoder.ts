/** @file A Transformer encoder (Vaswani et al. 2017, arXiv 1706.03762) in terms of what pruning left of it. */
import type { Layer, ModelGraph, ParameterSpec, Site } from "@espalier/core";
import {
  add,
  broadcastTo,
  cast,
  concat,
  divide,
  gather,
  gelu,
  input,
  integers,
  layerNorm,
  linear,
  matmul,
  multiply,
  positions,
  relu,
  reshape,
  type Shape,
  scalar,
  sigmoid,
  slice,
  softmax,
  subtract,
  sum,
  tanh,
  transpose,
  type Value,
} from "@espalier/graph";

/** What is left of the layers, by their numbers. Layers that are not mentioned are whole. */
export interface Pruning {
  /** The attention heads that a layer still has whole, as numbers of the dense model's, in order. */
  readonly heads: Readonly<Record<string, readonly number[]>>;
  /** For each rank: the heads that attend at that rank, likewise. */
  readonly implants: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;
  /** The same of the neurons of its feed-forward part. */
  readonly neurons: Readonly<Record<string, readonly number[]>>;
}

const activations = {
  gelu,
  // The approximation of Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
  gelu_new: (x: Value) => {
    const cube = multiply(multiply(x, x), multiply(x, scalar(0.044715)));
    const inner = tanh(multiply(add(x, cube), scalar(Math.sqrt(2 / Math.PI))));
    return multiply(multiply(x, scalar(0.5)), add(inner, scalar(1)));
  },
  relu,
  silu: (x: Value) => multiply(x, sigmoid(x)),
  tanh,
} as const;

export type Activation = keyof typeof activations;

export const activationNames = Object.keys(activations) as Activation[];

/** The sizes of a dense encoder. */
export interface Dimensions {
  readonly vocabulary: number;
  /** Numbers per token between the layers, and as they come from the embeddings. */
  readonly width: number;
  readonly embeddingWidth: number;
  readonly layers: number;
  readonly heads: number;
  /** Neurons of each feed-forward part. */
  readonly neurons: number;
  /** Rows of the table of positions, of which the first `firstPosition` are not used. */
  readonly positions: number;
  readonly firstPosition: number;
  /** Kinds of tokens, such as those of the first and of the second sentence; 0: not told apart. */
  readonly types: number;
  readonly activation: Activation;
  readonly epsilon: number;
}

/** What the tensors of one layer are called, without ".weight" and ".bias". */
export interface LayerNames {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** From the heads back to the width of the encoder. */
  readonly output: string;
  readonly attentionNorm: string;
  readonly up: string;
  readonly down: string;
  readonly feedForwardNorm: string;
}

export interface EncoderNames {
  /** Of `word_embeddings` and the like. */
  readonly embeddings: string;
  /** From the width of the embeddings to that of the encoder, where they differ. */
  readonly projection: string;
  layer(index: number): LayerNames;
}

/** Heads of one layer that are computed together: those that are whole, or implants of one rank. */
export interface HeadBatch {
  /** What follows the names of the query, key and value layers in those of its tensors. */
  readonly suffix: string;
  readonly heads: readonly number[];
  /** Rows of each of the three for one head. */
  readonly rank: number;
}

/** The heads of a layer, whole ones first, then implants, the smallest first. */
export function headBatches(
  { heads, width }: Pick<Dimensions, "heads" | "width">,
  pruning: Pruning,
  layer: number,
): HeadBatch[] {
  const whole = { suffix: "", heads: pruning.heads[layer] ?? range(heads), rank: width / heads };
  // Keys that are numbers come in ascending order.
  const implants = Object.entries(pruning.implants[layer] ?? {}).map(([rank, implanted]) => ({
    suffix: implantSuffix(Number(rank)),
    heads: implanted,
    rank: Number(rank),
  }));
  return [whole, ...implants].filter((batch) => batch.heads.length > 0);
}

/** What follows the name of a layer in the names of its implants of a rank. */
export function implantSuffix(rank: number): string {
  return `.implant.${rank}`;
}

/** What a parameter of implants is called in an encoder whose heads are whole. */
export function wholeName(parameter: string): string {
  return parameter.replace(/\.implant\.\d+(?=\.[a-z]+$)/, "");
}

/** What an encoder is pruned to that is whole. */
export const whole: Pruning = { heads: {}, implants: {}, neurons: {} };

/** A head or a neuron along an axis. Those of different spans differ even if their number is the same. */
export interface Unit {
  readonly unit: number;
  /** How many indices in a row it has. */
  readonly span: number;
}

export interface Declaration extends ParameterSpec {
  /** What a fresh parameter is drawn from: a standard deviation, or a value for all. */
  readonly initialization: { readonly normal: number } | { readonly value: number };
  /** For each axis: what is left of the dense layer's units, one after another; undefined: all indices. */
  readonly kept: readonly (readonly Unit[] | undefined)[];
}

// As BERT's authors draw weights (`initializer_range`).
const STANDARD_DEVIATION = 0.02;
// exp of it is zero, whatever is added.
const EXCLUDED = -1e9;

function range(count: number): number[] {
  return [...Array(count).keys()];
}

/** Of samples of tokens, the first token each: [batch, 1, width]. */
function firstToken(x: Value): Value {
  return slice(x, 1, 0, 1);
}

function unitsOf(numbers: readonly number[], span: number): Unit[] {
  return numbers.map((unit) => ({ unit, span }));
}

/** Builds an encoder layer by layer, and declares the parameters that each needs. */
export class Encoder {
  readonly parameters = new Map<string, Value>();
  readonly declarations = new Map<string, Declaration>();
  readonly sites = new Map<string, Site>();
  readonly fittable = new Map<string, Layer>();
  readonly implantable = new Set<string>();
  readonly implants = new Set<string>();
  readonly observations = new Map<string, readonly Value[]>();
  readonly emptiable = new Set<string>();
  readonly inputs: Record<string, Value> = {};
  readonly #dimensions: Dimensions;
  readonly #names: EncoderNames;
  readonly #pruning: Pruning;
  #mask: Value | undefined;

  constructor(dimensions: Dimensions, names: EncoderNames, pruning: Pruning = whole) {
    this.#dimensions = dimensions;
    this.#names = names;
    this.#pruning = pruning;
  }

  /**
   * Embeddings and the results of all layers for [batch, length] tokens: [batch, length, width] each,
   * but for the last. Of that only the first token is used, so that it is computed of no other:
   * [batch, 1, width].
   */
  encode(batch: number, length: number): Value[] {
    const ids = this.#input("input_ids", [batch, length]);
    const mask = cast(this.#input("attention_mask", [batch, length]), "float32");
    this.#mask = mask;
    const excluded = multiply(subtract(scalar(1), mask), scalar(EXCLUDED));
    const bias = reshape(excluded, [batch, 1, 1, length]);
    const hidden = [this.#embed(ids)];
    const { layers } = this.#dimensions;
    for (const layer of range(layers)) {
      const x = hidden[layer];
      const asked = layer === layers - 1 ? firstToken(x) : x;
      const attended = this.#attend(asked, x, bias, layer);
      hidden.push(this.#feedForward(attended, layer));
    }
    return hidden;
  }

  /** The first token of every sample, which stands for the whole: [batch, width]. */
  first(hidden: Value): Value {
    const [batch, , width] = hidden.shape;
    return reshape(firstToken(hidden), [batch, width]);
  }

  /** A linear layer with a bias and an activation. */
  dense(name: string, x: Value, outputs: number, activation?: Activation): Value {
    const y = this.#linear(name, x, outputs);
    return activation === undefined ? y : activations[activation](y);
  }

  /** The finished graph, with the outputs of its layers. */
  graph(logits: Value, hidden: readonly Value[]): ModelGraph {
    const { inputs, parameters, sites, fittable, implantable, implants, observations } = this;
    return {
      ...{
        inputs,
        parameters,
        logits,
        hidden,
        sites,
        fittable,
        implantable,
        implants,
        observations,
      },
      mask: this.#mask,
      emptiable: this.emptiable,
      statistics: new Map(),
    };
  }

  #embed(ids: Value): Value {
    const { vocabulary, embeddingWidth, positions: count, firstPosition } = this.#dimensions;
    const { types, width } = this.#dimensions;
    const { embeddings, projection } = this.#names;
    const table = (name: string, rows: number) =>
      this.#parameter(`${embeddings}.${name}.weight`, [rows, embeddingWidth], "weight", {
        normal: STANDARD_DEVIATION,
      });
    let x = gather(table("word_embeddings", vocabulary), ids, 0);
    if (types > 0) {
      const kinds = table("token_type_embeddings", types);
      // All tokens are of the one kind that there is; exports of others ask for no kinds then, either.
      x = add(x, types === 1 ? kinds : gather(kinds, this.#input("token_type_ids", ids.shape), 0));
    }
    // The same for all samples, so that their gradients are added up before they reach the table.
    const at = add(positions(slice(ids, 0, 0, 1)), integers([1], [firstPosition]));
    x = add(x, gather(table("position_embeddings", count), at, 0));
    x = this.#norm(`${embeddings}.LayerNorm`, x);
    return embeddingWidth === width ? x : this.#linear(projection, x, width);
  }

  /** What tokens of `x` make of all tokens of `context`: of the shape of `x`. */
  #attend(x: Value, context: Value, bias: Value, layer: number): Value {
    const { width } = this.#dimensions;
    const { query, key, value, output, attentionNorm } = this.#names.layer(layer);
    const batches = headBatches(this.#dimensions, this.#pruning, layer);
    const [batch, length] = x.shape;
    const joined = batches.map((heads) => {
      const attended = this.#attendTogether(x, context, bias, layer, heads);
      this.sites.set(`${value}${heads.suffix}.weight`, {
        value: attended,
        offset: 0,
        axis: 1,
        span: heads.rank,
        rows: [query, key, value].flatMap((name) =>
          ["weight", "bias"].map((kind) => `${name}${heads.suffix}.${kind}`),
        ),
        kind: "head",
        layer: value,
        channels: heads.heads,
      });
      this.emptiable.add(`${value}${heads.suffix}.weight`);
      const inner = heads.heads.length * heads.rank;
      return reshape(transpose(attended, [0, 2, 1, 3]), [batch, length, inner]);
    });
    const columns = batches.flatMap((heads) => unitsOf(heads.heads, heads.rank));
    const made = joined.length === 0 ? undefined : { x: concat(joined, 2), columns };
    return this.#norm(attentionNorm, add(x, this.#residual(output, made, width)));
  }

  /** What heads of one rank make of it: [batch, heads, tokens of `x`, rank]. */
  #attendTogether(
    x: Value,
    context: Value,
    bias: Value,
    layer: number,
    { suffix, heads, rank }: HeadBatch,
  ): Value {
    const { query, key, value } = this.#names.layer(layer);
    const rows = unitsOf(heads, rank);
    const project = (name: string, from: Value) => {
      const [batch, length] = from.shape;
      const projected = this.#linear(`${name}${suffix}`, from, heads.length * rank, rows);
      return transpose(reshape(projected, [batch, length, heads.length, rank]), [0, 2, 1, 3]);
    };
    const queries = project(query, x);
    const [keys, values] = [key, value].map((name) => project(name, context));
    const span = this.#dimensions.width / this.#dimensions.heads;
    // Products of implants stand for those of whole heads.
    const scores = multiply(matmul(queries, transpose(keys)), scalar(1 / Math.sqrt(span)));
    const attended = matmul(softmax(add(scores, bias)), values);
    if (suffix !== "") {
      this.implants.add(`${value}${suffix}.weight`);
      this.implants.add(`${value}${suffix}.bias`);
    } else if (span > 1) {
      this.implantable.add(`${value}.weight`);
      this.observations.set(`${value}.weight`, this.#observe(queries, keys, attended));
    }
    return attended;
  }

  /**
   * What implants are fitted to, for each sample and head, over positions that are not filled up: the
   * second moments of the queries, of the keys less their mean in the sample, and of the contexts with
   * a one after them.
   */
  #observe(queries: Value, keys: Value, attended: Value): Value[] {
    const [batch, heads, length] = keys.shape;
    const [, , asked] = queries.shape;
    const mask = reshape(this.#mask!, [batch, 1, length, 1]);
    const askedMask = slice(mask, 2, 0, asked);
    const centre = divide(sum(multiply(keys, mask), [2], true), sum(mask, [2], true));
    return [
      multiply(queries, askedMask),
      multiply(subtract(keys, centre), mask),
      concat([multiply(attended, askedMask), broadcastTo(askedMask, [batch, heads, asked, 1])], 3),
    ].map((value) => matmul(transpose(value), value));
  }

  #feedForward(x: Value, layer: number): Value {
    const { neurons, width, activation } = this.#dimensions;
    const { up, down, feedForwardNorm } = this.#names.layer(layer);
    const channels = this.#pruning.neurons[layer] ?? range(neurons);
    const kept = unitsOf(channels, 1);
    let made: { x: Value; columns: readonly Unit[] } | undefined;
    if (channels.length > 0) {
      const active = activations[activation](this.#linear(up, x, channels.length, kept));
      this.sites.set(`${up}.weight`, {
        value: active,
        offset: 0,
        axis: 2,
        kind: "neuron",
        layer: up,
        channels,
      });
      this.emptiable.add(`${up}.weight`);
      made = { x: active, columns: kept };
    }
    return this.#norm(feedForwardNorm, add(x, this.#residual(down, made, width)));
  }

  /** What is added to the residual stream: a linear layer, or its bias where it has nothing to read. */
  #residual(
    name: string,
    made: { x: Value; columns: readonly Unit[] } | undefined,
    width: number,
  ): Value {
    const shift = { parameter: `${name}.bias`, sign: 1 } as const;
    this.fittable.set(`${name}.weight`, { layer: name, channels: range(width), offset: 0, shift });
    return made === undefined
      ? this.#bias(name, width)
      : this.#linear(name, made.x, width, undefined, made.columns);
  }

  #linear(
    name: string,
    x: Value,
    outputs: number,
    rows?: readonly Unit[],
    columns?: readonly Unit[],
  ): Value {
    const shape = [outputs, x.shape[x.shape.length - 1]];
    const initialization = { normal: STANDARD_DEVIATION };
    const w = this.#parameter(`${name}.weight`, shape, "weight", initialization, [rows, columns]);
    return add(linear(x, w), this.#bias(name, outputs, rows));
  }

  #bias(name: string, outputs: number, kept?: readonly Unit[]): Value {
    return this.#parameter(`${name}.bias`, [outputs], "bias", { value: 0 }, [kept]);
  }

  #norm(name: string, x: Value): Value {
    const shape = [x.shape[x.shape.length - 1]];
    const scale = this.#parameter(`${name}.weight`, shape, "normalization", { value: 1 });
    const bias = this.#parameter(`${name}.bias`, shape, "normalization", { value: 0 });
    return layerNorm(x, scale, bias, this.#dimensions.epsilon);
  }

  #input(name: string, shape: Shape): Value {
    return (this.inputs[name] = input(name, shape, "int64"));
  }

  #parameter(
    name: string,
    shape: Shape,
    kind: Declaration["kind"],
    initialization: Declaration["initialization"],
    kept: Declaration["kept"] = [],
  ): Value {
    const value = input(name, shape);
    this.parameters.set(name, value);
    this.declarations.set(name, { shape, kind, initialization, kept });
    return value;
  }
}
