/** @file BERT (Devlin et al. 2019, arXiv 1810.04805) and what is named and shaped like it. */
import type { ModelFamily } from "@espalier/core";
import * as z from "zod";
import type { EncoderNames } from "./encoder.ts";
import { activationName, defineTextFamily, size, type TextConfig, textConfig } from "./family.ts";

/** The fields of the configurations of BERT, RoBERTa and ELECTRA. */
const fields = {
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: z.int().min(1).max(2000),
  num_attention_heads: size,
  intermediate_size: size,
  max_position_embeddings: size,
  type_vocab_size: size,
  hidden_act: activationName,
  layer_norm_eps: z.number().positive().default(1e-12),
  pad_token_id: z.int().min(0).nullable().optional(),
  // Relative positions, and attention to what came before alone, are other networks.
  position_embedding_type: z.literal("absolute").optional(),
  is_decoder: z.literal(false).optional(),
};

const schema = textConfig.extend({ model_type: z.string(), ...fields });

type BertConfig = TextConfig & z.output<typeof schema>;

/** The names that Hugging Face's BERT and its relatives share, below `prefix`. */
function names(prefix: string): EncoderNames {
  return {
    embeddings: `${prefix}embeddings`,
    projection: `${prefix}embeddings_project`,
    layer: (index) => {
      const layer = `${prefix}encoder.layer.${index}`;
      return {
        query: `${layer}.attention.self.query`,
        key: `${layer}.attention.self.key`,
        value: `${layer}.attention.self.value`,
        output: `${layer}.attention.output.dense`,
        attentionNorm: `${layer}.attention.output.LayerNorm`,
        up: `${layer}.intermediate.dense`,
        down: `${layer}.output.dense`,
        feedForwardNorm: `${layer}.output.LayerNorm`,
      };
    },
  };
}

function dimensions(config: BertConfig) {
  return {
    vocabulary: config.vocab_size,
    width: config.hidden_size,
    embeddingWidth: config.hidden_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    neurons: config.intermediate_size,
    positions: config.max_position_embeddings,
    firstPosition: 0,
    types: config.type_vocab_size,
    activation: config.hidden_act,
    epsilon: config.layer_norm_eps,
  };
}

/** BERT, and smaller models of the same layout such as MiniLM (arXiv 2002.10957). */
export const bert = defineTextFamily<BertConfig>({
  name: "bert",
  className: "Bert",
  schema,
  dimensions,
  names: names("bert."),
  prefix: "bert.",
  head: { hidden: "bert.pooler.dense", activation: "tanh", output: "classifier" },
  ignored: /^(embeddings\.position_ids|cls\.)/,
});

/** RoBERTa (Liu et al. 2019, arXiv 1907.11692): positions begin after that of padding. */
export const roberta = defineTextFamily<BertConfig>({
  name: "roberta",
  className: "Roberta",
  schema,
  dimensions: (config) => ({
    ...dimensions(config),
    firstPosition: (config.pad_token_id ?? 1) + 1,
  }),
  names: names("roberta."),
  prefix: "roberta.",
  head: { hidden: "classifier.dense", activation: "tanh", output: "classifier.out_proj" },
  ignored: /^(embeddings\.position_ids|lm_head\.|pooler\.)/,
});

const electraSchema = schema.extend({ embedding_size: size });

/** ELECTRA's discriminator (Clark et al. 2020, arXiv 2003.10555): embeddings of a width of their own. */
export const electra = defineTextFamily<TextConfig & z.output<typeof electraSchema>>({
  name: "electra",
  className: "Electra",
  schema: electraSchema,
  dimensions: (config) => ({ ...dimensions(config), embeddingWidth: config.embedding_size }),
  names: names("electra."),
  prefix: "electra.",
  head: { hidden: "classifier.dense", activation: "gelu", output: "classifier.out_proj" },
  ignored: /^(embeddings\.position_ids|discriminator_predictions\.)/,
});

const distilSchema = textConfig.extend({
  model_type: z.literal("distilbert"),
  vocab_size: size,
  dim: size,
  n_layers: z.int().min(1).max(2000),
  n_heads: size,
  hidden_dim: size,
  max_position_embeddings: size,
  activation: activationName,
  pad_token_id: z.int().min(0).nullable().optional(),
});

/** DistilBERT (Sanh et al. 2019, arXiv 1910.01108): half of BERT's layers, no types of tokens. */
export const distilbert = defineTextFamily<TextConfig & z.output<typeof distilSchema>>({
  name: "distilbert",
  className: "DistilBert",
  schema: distilSchema,
  dimensions: (config) => ({
    vocabulary: config.vocab_size,
    width: config.dim,
    embeddingWidth: config.dim,
    layers: config.n_layers,
    heads: config.n_heads,
    neurons: config.hidden_dim,
    positions: config.max_position_embeddings,
    firstPosition: 0,
    types: 0,
    activation: config.activation,
    epsilon: 1e-12,
  }),
  names: {
    embeddings: "distilbert.embeddings",
    projection: "distilbert.embeddings_project",
    layer: (index) => {
      const layer = `distilbert.transformer.layer.${index}`;
      return {
        query: `${layer}.attention.q_lin`,
        key: `${layer}.attention.k_lin`,
        value: `${layer}.attention.v_lin`,
        output: `${layer}.attention.out_lin`,
        attentionNorm: `${layer}.sa_layer_norm`,
        up: `${layer}.ffn.lin1`,
        down: `${layer}.ffn.lin2`,
        feedForwardNorm: `${layer}.output_layer_norm`,
      };
    },
  },
  prefix: "distilbert.",
  head: { hidden: "pre_classifier", activation: "relu", output: "classifier" },
  ignored: /^(embeddings\.position_ids|vocab_)/,
});

/** Every family of encoders. */
export const encoders: readonly ModelFamily[] = [bert, roberta, distilbert, electra];
