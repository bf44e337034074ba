/** @file A Transformer encoder (Vaswani et al. 2017, arXiv 1706.03762) in terms of what pruning left of it. */
import type { ModelGraph, ParameterSpec, Site } from "@espalier/core";
import {
  add,
  cast,
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
  tanh,
  transpose,
  type Value,
} from "@espalier/graph";

/** What is left of the layers, by their numbers. Layers that are not mentioned are whole. */
export interface Pruning {
  /** The attention heads that a layer still has, as numbers of the dense model's heads, in order. */
  readonly heads: Readonly<Record<string, readonly number[]>>;
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

/** Which of the dense tensor's indices an axis has: units of `span` indices each. */
export interface Kept {
  readonly units: readonly number[];
  readonly span: number;
}

export interface Declaration extends ParameterSpec {
  /** What a fresh parameter is drawn from: a standard deviation, or a value for all. */
  readonly initialization: { readonly normal: number } | { readonly value: number };
  /** For each axis; undefined: all indices. */
  readonly kept: readonly (Kept | undefined)[];
}

// As BERT's authors draw weights (`initializer_range`).
const STANDARD_DEVIATION = 0.02;
// exp of it is zero, whatever is added.
const EXCLUDED = -1e9;

function range(count: number): number[] {
  return [...Array(count).keys()];
}

/** Builds an encoder layer by layer, and declares the parameters that each needs. */
export class Encoder {
  readonly parameters = new Map<string, Value>();
  readonly declarations = new Map<string, Declaration>();
  readonly sites = new Map<string, Site>();
  readonly emptiable = new Set<string>();
  readonly inputs: Record<string, Value> = {};
  readonly #dimensions: Dimensions;
  readonly #names: EncoderNames;
  readonly #pruning: Pruning;

  constructor(
    dimensions: Dimensions,
    names: EncoderNames,
    pruning: Pruning = { heads: {}, neurons: {} },
  ) {
    this.#dimensions = dimensions;
    this.#names = names;
    this.#pruning = pruning;
  }

  /** Embeddings and the results of all layers for [batch, length] tokens: [batch, length, width] each. */
  encode(batch: number, length: number): Value[] {
    const ids = this.#input("input_ids", [batch, length]);
    const mask = this.#input("attention_mask", [batch, length]);
    const excluded = multiply(subtract(scalar(1), cast(mask, "float32")), scalar(EXCLUDED));
    const bias = reshape(excluded, [batch, 1, 1, length]);
    const hidden = [this.#embed(ids)];
    for (const layer of range(this.#dimensions.layers)) {
      const attended = this.#attend(hidden[layer], bias, layer);
      hidden.push(this.#feedForward(attended, layer));
    }
    return hidden;
  }

  /** The first token of every sample, which stands for the whole: [batch, width]. */
  first(hidden: Value): Value {
    const [batch, , width] = hidden.shape;
    return reshape(slice(hidden, 1, 0, 1), [batch, width]);
  }

  /** A linear layer with a bias and an activation. */
  dense(name: string, x: Value, outputs: number, activation?: Activation): Value {
    const y = this.#linear(name, x, outputs);
    return activation === undefined ? y : activations[activation](y);
  }

  /** The finished graph. */
  graph(logits: Value): ModelGraph {
    const { inputs, parameters, sites, emptiable } = this;
    const none = new Set<string>();
    return {
      inputs,
      parameters,
      logits,
      sites,
      emptiable,
      implantable: none,
      implants: none,
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
    const at = add(positions(ids), integers([1], [firstPosition]));
    x = add(x, gather(table("position_embeddings", count), at, 0));
    x = this.#norm(`${embeddings}.LayerNorm`, x);
    return embeddingWidth === width ? x : this.#linear(projection, x, width);
  }

  #attend(x: Value, bias: Value, layer: number): Value {
    const { heads, width } = this.#dimensions;
    const { query, key, value, output, attentionNorm } = this.#names.layer(layer);
    const [batch, length] = x.shape;
    const kept = { units: this.#pruning.heads[layer] ?? range(heads), span: width / heads };
    const inner = kept.units.length * kept.span;
    const split = (name: string) => {
      const projected = this.#linear(name, x, inner, kept);
      return transpose(
        reshape(projected, [batch, length, kept.units.length, kept.span]),
        [0, 2, 1, 3],
      );
    };
    if (inner === 0) return this.#norm(attentionNorm, add(x, this.#bias(output, width)));
    const scores = multiply(
      matmul(split(query), transpose(split(key))),
      scalar(1 / Math.sqrt(kept.span)),
    );
    const context = matmul(softmax(add(scores, bias)), split(value));
    this.sites.set(`${value}.weight`, {
      value: context,
      offset: 0,
      axis: 1,
      span: kept.span,
      kind: "head",
      layer: value,
      channels: kept.units,
    });
    this.emptiable.add(`${value}.weight`);
    const joined = reshape(transpose(context, [0, 2, 1, 3]), [batch, length, inner]);
    return this.#norm(attentionNorm, add(x, this.#linear(output, joined, width, undefined, kept)));
  }

  #feedForward(x: Value, layer: number): Value {
    const { neurons, width, activation } = this.#dimensions;
    const { up, down, feedForwardNorm } = this.#names.layer(layer);
    const kept = { units: this.#pruning.neurons[layer] ?? range(neurons), span: 1 };
    if (kept.units.length === 0)
      return this.#norm(feedForwardNorm, add(x, this.#bias(down, width)));
    const active = activations[activation](this.#linear(up, x, kept.units.length, kept));
    this.sites.set(`${up}.weight`, {
      value: active,
      offset: 0,
      axis: 2,
      kind: "neuron",
      layer: up,
      channels: kept.units,
    });
    this.emptiable.add(`${up}.weight`);
    return this.#norm(feedForwardNorm, add(x, this.#linear(down, active, width, undefined, kept)));
  }

  #linear(name: string, x: Value, outputs: number, rows?: Kept, columns?: Kept): Value {
    const shape = [outputs, x.shape[x.shape.length - 1]];
    const initialization = { normal: STANDARD_DEVIATION };
    const w = this.#parameter(`${name}.weight`, shape, "weight", initialization, [rows, columns]);
    return add(linear(x, w), this.#bias(name, outputs, rows));
  }

  #bias(name: string, outputs: number, kept?: Kept): Value {
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
