/** @file A tiny encoder and samples for it, for tests. */
import {
  bindParameters,
  type Model,
  type ModelConfig,
  type Parameter,
  Random,
  type Samples,
} from "@espalier/core";
import { type Executor, float32Data } from "@espalier/graph";
import { bert, distilbert } from "../bert.ts";

const bertSizes = {
  hidden_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  intermediate_size: 5,
  type_vocab_size: 2,
  hidden_act: "gelu",
};
const distilbertSizes = { dim: 6, n_layers: 2, n_heads: 3, hidden_dim: 5, activation: "gelu" };

/** The configuration of a tiny model: two layers of three heads and five neurons. */
export function tinyConfig(family = bert): ModelConfig {
  return {
    model_type: family.name,
    ...(family === distilbert ? distilbertSizes : bertSizes),
    vocab_size: 20,
    max_position_embeddings: 12,
    head: { hidden: true, output: true },
    num_labels: 3,
  };
}

/** A fresh model whose weights are as large as trained ones, so that attention is not even. */
export function tinyModel(changes: Partial<ModelConfig> = {}, family = bert): Model {
  const random = new Random(3);
  const fresh = family.initialize({ ...tinyConfig(family), ...changes }, random);
  return fresh.withParameters(
    new Map(
      [...fresh.parameters].map(([name, parameter]): [string, Parameter] => {
        const noise = random.stream(name);
        const centre = parameter.kind === "normalization" && name.endsWith("weight") ? 1 : 0;
        return [
          name,
          { ...parameter, data: parameter.data.map(() => centre + 0.5 * noise.normal()) },
        ];
      }),
    ),
  );
}

/** Random tokens, of two lengths. */
export function randomSamples(count: number): Samples {
  const random = new Random(5);
  const lengths = Uint32Array.from({ length: count }, (_, i) => (i % 2 === 0 ? 4 : 8));
  return {
    count,
    lengths,
    batch: async (indices) => {
      const chosen = Array.from(indices);
      const length = Math.max(...chosen.map((i) => lengths[i]));
      const fill = (of: (sample: number, position: number) => number) =>
        BigInt64Array.from(
          chosen.flatMap((i) => Array.from({ length }, (_, k) => BigInt(of(i, k)))),
        );
      return {
        length,
        labels: chosen.map((i) => i % 3),
        feeds: {
          input_ids: fill((i, k) => random.stream("token", i, k).integer(20)),
          attention_mask: fill((i, k) => (k < lengths[i] - (i % 3) ? 1 : 0)),
          token_type_ids: fill((_, k) => (k < 2 ? 0 : 1)),
        },
      };
    },
  };
}

/** The logits of all samples in one batch: [samples, 3]. */
export async function tinyLogits(
  executor: Executor,
  model: Model,
  samples = randomSamples(4),
): Promise<Float32Array> {
  const batch = await samples.batch([...Array(samples.count).keys()]);
  const { graph, constants } = bindParameters(model, samples.count, "evaluation", batch.length);
  const program = await executor.compile({ outputs: { logits: graph.logits }, constants });
  const { logits } = await program.run(batch.feeds);
  await program.dispose();
  return float32Data(logits);
}
