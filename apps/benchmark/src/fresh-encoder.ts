/** @file Encoders with fresh weights and random tokens: time and memory do not depend on either. */
import { type Model, Random, type Samples } from "@espalier/core";
import { bert } from "@espalier/nlp";

export interface EncoderSize {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly neurons: number;
}

/** That of all-MiniLM-L6-v2, and that of BERT-base (arXiv 1810.04805, section 3). */
export const encoderSizes = {
  MiniLM: { width: 384, layers: 6, heads: 12, neurons: 1536 },
  "BERT-base": { width: 768, layers: 12, heads: 12, neurons: 3072 },
} as const satisfies Readonly<Record<string, EncoderSize>>;

/** Tokens of each sequence. */
export const LENGTH = 128;

const VOCABULARY = 30522;

/** Of its words, those in the 67,349 sentences that SST-2 trains on. */
export const WORDS = 11573;

/** An encoder with a head for two classes. */
export function freshEncoder({ width, layers, heads, neurons }: EncoderSize): Model {
  const config = {
    model_type: "bert",
    vocab_size: VOCABULARY,
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    intermediate_size: neurons,
    max_position_embeddings: 512,
    type_vocab_size: 2,
    hidden_act: "gelu",
    head: { hidden: true, output: true },
    num_labels: 2,
  };
  return bert.initialize(config, new Random(0));
}

/** Sequences of `LENGTH` random tokens, any of `WORDS`, and of two classes in turn. */
export function randomSequences(count: number): Samples {
  const random = new Random(1);
  return {
    count,
    lengths: new Uint32Array(count).fill(LENGTH),
    batch: async (indices) => {
      const chosen = Array.from(indices);
      const tokens = chosen.flatMap((index) => {
        const drawn = random.stream("tokens", index);
        return Array.from({ length: LENGTH }, () => BigInt(drawn.integer(WORDS)));
      });
      return {
        length: LENGTH,
        labels: chosen.map((index) => index % 2),
        feeds: {
          input_ids: BigInt64Array.from(tokens),
          attention_mask: new BigInt64Array(tokens.length).fill(1n),
          token_type_ids: new BigInt64Array(tokens.length),
        },
      };
    },
    tokens: () => Uint32Array.from({ length: WORDS }, (_, token) => token),
  };
}
