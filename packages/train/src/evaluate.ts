/** @file Accuracy and loss of a model on samples. */
import {
  type Batch,
  bindParameters,
  fitBatch,
  forEachBatch,
  type Model,
  type Samples,
} from "@espalier/core";
import { cost, type Executor, float32Data } from "@espalier/graph";

export interface Evaluation {
  readonly count: number;
  /** Share of samples whose largest logit is that of their label. */
  readonly accuracy: number;
  /** Mean cross-entropy, in nats. */
  readonly loss: number;
}

export interface EvaluateOptions {
  readonly executor: Executor;
  /**
   * Samples at a time; fewer where the executor's memory limit demands it. It does not change the
   * result beyond rounding.
   */
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Called after every batch with the number of samples done. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Runs `model` in evaluation mode on all of `samples`. */
export async function evaluate(
  model: Model,
  samples: Samples,
  { executor, batchSize: wanted, signal, onProgress }: EvaluateOptions,
): Promise<Evaluation> {
  const prepared = fitBatch(executor, Math.min(wanted, samples.count), (batchSize) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation");
    const { logits } = graph;
    return { batchSize, constants, logits, peakBytes: cost([logits]).peakBytes };
  });
  const { batchSize, logits, constants } = prepared;
  const program = await executor.compile({ outputs: { logits }, constants });
  const score = new Score(model.classes.length);
  try {
    await forEachBatch({ samples, batchSize, signal }, async (batch, start, count) => {
      const results = await program.run(batch.feeds);
      score.add(float32Data(results.logits), batch, count);
      onProgress?.(start + count, samples.count);
    });
  } finally {
    await program.dispose();
  }
  return score.result();
}

/** Adds up accuracy and cross-entropy in float64. */
export class Score {
  readonly #classes: number;
  #count = 0;
  #correct = 0;
  #loss = 0;

  constructor(classes: number) {
    this.#classes = classes;
  }

  /** The first `count` rows of `logits` [·, classes], but for substitutes. */
  add(
    logits: Float32Array,
    { labels, substitutes }: Pick<Batch, "labels" | "substitutes">,
    count: number,
  ): void {
    for (let n = 0; n < count; n++) {
      if (substitutes?.has(n)) continue;
      const row = logits.subarray(n * this.#classes, (n + 1) * this.#classes);
      let best = 0;
      for (let c = 1; c < row.length; c++) if (row[c] > row[best]) best = c;
      const total = row.reduce((sum, x) => sum + Math.exp(x - row[best]), 0);
      this.#loss += Math.log(total) + row[best] - row[labels[n]];
      if (best === labels[n]) this.#correct++;
      this.#count++;
    }
  }

  result(): Evaluation {
    const count = this.#count;
    return { count, accuracy: this.#correct / count, loss: this.#loss / count };
  }
}
