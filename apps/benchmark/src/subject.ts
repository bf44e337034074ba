/** @file A network under test, and what all measurements of accuracy do with it. */
import { drawSamples, type Model, Random, type Samples, selectSamples } from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { loadSource, type Task } from "@espalier/pipeline";
import { evaluate, reestimateStatistics } from "@espalier/train";
import { cifarResNet } from "@espalier/vision";

export interface SubjectOptions {
  readonly source: string;
  readonly task: Task;
  readonly executor: Executor;
  /** How many training images layers are fitted and statistics estimated on. */
  readonly calibration: number;
  /** The first so many test images; default: all. */
  readonly images?: number;
}

export interface Subject {
  readonly dense: Model;
  /** All randomness of the measurement. */
  readonly random: Random;
  /** Training images to score components on. */
  readonly scoring: Samples;
  readonly calibration: Samples;
  readonly test: Samples;
  /** `model` with statistics of normalisation estimated anew, by default on all of `calibration`. */
  reestimate(model: Model, samples?: Samples): Promise<Model>;
  /** Accuracy on the test images. */
  judge(model: Model): Promise<number>;
}

const SCORING_IMAGES = 256;

export async function openSubject(options: SubjectOptions): Promise<Subject> {
  const { source, task, executor, images = Number.POSITIVE_INFINITY } = options;
  const { model: dense } = await loadSource(source, [cifarResNet]);
  const train = task.train(dense);
  const all = task.test(dense);
  const test = selectSamples(all, [...Array(Math.min(images, all.count)).keys()]);
  const random = new Random(0);
  const scoring = drawSamples(train, SCORING_IMAGES, random.stream("scoring"));
  const calibration = drawSamples(train, options.calibration, random.stream("calibration"));
  return {
    dense,
    random,
    scoring,
    calibration,
    test,
    reestimate: (model, samples = calibration) =>
      reestimateStatistics(model, samples, {
        executor,
        batchSize: Math.min(256, samples.count),
        augmentation: random.stream("statistics"),
      }),
    judge: async (model) => (await evaluate(model, test, { executor, batchSize: 250 })).accuracy,
  };
}
