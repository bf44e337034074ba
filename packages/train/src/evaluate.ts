/** @file Accuracy and loss of a model on samples. */
import { EspalierError } from "@espalier/base";
import {
  type Batch,
  bindParameters,
  fitBatch,
  forEachBatch,
  longest,
  type Measure,
  type Model,
  measures,
  objectiveOf,
  PerLength,
  type Samples,
} from "@espalier/core";
import { cost, type Executor, float32Data } from "@espalier/graph";

export interface Evaluation {
  readonly count: number;
  /** Share of samples whose largest logit is that of their label; of regression, Pearson's correlation. */
  readonly accuracy: number;
  /** Mean cross-entropy, in nats; of regression half the mean squared error. */
  readonly loss: number;
  /** Whatever else was asked for. */
  readonly measures?: Partial<Record<Measure, number>>;
}

export interface EvaluateOptions {
  readonly executor: Executor;
  /**
   * Samples at a time; fewer where the executor's memory limit demands it. It does not change the
   * result beyond rounding.
   */
  readonly batchSize: number;
  /** What to report besides accuracy and loss. */
  readonly measures?: readonly Measure[] | undefined;
  /**
   * The model's class of each class of the task, whose numbers measures are about; default: they are
   * the same.
   */
  readonly classes?: readonly number[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called after every batch with the number of samples done. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Runs `model` in evaluation mode on all of `samples`.
 *
 * @throws EspalierError `invalid-argument` if there are none, and `not-finite` naming the first whose
 *   outputs are NaN or infinite.
 */
export async function evaluate(
  model: Model,
  samples: Samples,
  options: EvaluateOptions,
): Promise<Evaluation> {
  expectSome(samples.count);
  const { executor } = options;
  const prepare = (batchSize: number, length: number | undefined) => {
    const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
    const { logits } = graph;
    return { batchSize, constants, outputs: { logits }, peakBytes: cost([logits]).peakBytes };
  };
  const { batchSize } = fitBatch(executor, Math.min(options.batchSize, samples.count), (size) =>
    prepare(size, longest(samples)),
  );
  const programs = new PerLength((length) => executor.compile(prepare(batchSize, length)));
  const logitsOf = async (batch: Batch) => {
    const program = await programs.for(batch);
    return float32Data((await program.run(batch.feeds)).logits);
  };
  try {
    return await judge(model, samples, logitsOf, { ...options, batchSize });
  } finally {
    await programs.dispose();
  }
}

/**
 * Judges what `logitsOf` puts out, [samples, classes], for batches of all of `samples`, as `evaluate` does.
 *
 * @throws EspalierError as `evaluate`.
 */
export async function judge(
  model: Pick<Model, "classes" | "objective">,
  samples: Samples,
  logitsOf: (batch: Batch) => Promise<Float32Array>,
  options: Omit<EvaluateOptions, "executor">,
): Promise<Evaluation> {
  expectSome(samples.count);
  const { batchSize, measures: asked = [], classes, signal, onProgress } = options;
  const score = new Score(model);
  await forEachBatch({ samples, batchSize, signal }, async (batch, start, count) => {
    score.add(await logitsOf(batch), batch, count);
    onProgress?.(start + count, samples.count);
  });
  return score.result(asked, classes);
}

function expectSome(count: number): void {
  if (count > 0) return;
  throw new EspalierError(
    "invalid-argument",
    `evaluation: expected at least one sample that can be judged, got ${count}`,
  );
}

/** Gathers predictions, and adds up the loss in float64. */
export class Score {
  readonly #outputs: number;
  readonly #regression: boolean;
  /** Of each sample: the class with the largest logit, or the number predicted. */
  readonly #predictions: number[] = [];
  readonly #labels: number[] = [];
  /** Substitutes included. */
  #rows = 0;
  #loss = 0;

  constructor(model: Pick<Model, "classes" | "objective">) {
    this.#outputs = model.classes.length;
    this.#regression = objectiveOf(model).name === "regression";
  }

  /**
   * The first `count` rows of `logits` [·, classes], but for substitutes.
   *
   * @throws EspalierError `not-finite` naming the first row that has NaN or infinity.
   */
  add(
    logits: Float32Array,
    { labels, substitutes }: Pick<Batch, "labels" | "substitutes">,
    count: number,
  ): void {
    for (let n = 0; n < count; n++) {
      if (substitutes?.has(n)) continue;
      const row = logits.subarray(n * this.#outputs, (n + 1) * this.#outputs);
      const wrong = row.findIndex((value) => !Number.isFinite(value));
      if (wrong >= 0) {
        const sample = this.#rows + n;
        throw new EspalierError(
          "not-finite",
          `evaluation: expected finite outputs, got ${row[wrong]} as output ${wrong} of sample ${sample}, counted from 0 in the order of evaluation`,
          { sample, output: wrong, got: row[wrong] },
        );
      }
      this.#labels.push(labels[n]);
      if (this.#regression) {
        this.#loss += (row[0] - labels[n]) ** 2 / 2;
        this.#predictions.push(row[0]);
        continue;
      }
      let best = 0;
      for (let c = 1; c < row.length; c++) if (row[c] > row[best]) best = c;
      const total = row.reduce((sum, x) => sum + Math.exp(x - row[best]), 0);
      this.#loss += Math.log(total) + row[best] - row[labels[n]];
      this.#predictions.push(best);
    }
    this.#rows += count;
  }

  /**
   * A correlation that is not defined, since one side does not vary, counts as 0. Measures are about
   * the task's classes: see `EvaluateOptions.classes`.
   *
   * @throws EspalierError `invalid-argument` if nothing was added.
   */
  result(wanted: readonly Measure[] = [], classes?: readonly number[]): Evaluation {
    const count = this.#labels.length;
    expectSome(count);
    const inTask = (values: readonly number[]) =>
      classes === undefined ? values : values.map((value) => classes.indexOf(value));
    const [predictions, labels] = [inTask(this.#predictions), inTask(this.#labels)];
    const measure = (name: Measure) => measures[name](predictions, labels) || 0;
    return {
      count,
      accuracy: measure(this.#regression ? "pearson" : "accuracy"),
      loss: this.#loss / count,
      ...(wanted.length === 0
        ? {}
        : {
            measures: Object.fromEntries(wanted.map((name) => [name, measure(name)])),
          }),
    };
  }
}
