/** @file The samples that a model is pruned, tuned and judged on. */
import { EspalierError } from "@espalier/base";
import type { Measure, Model, Objective, Samples } from "@espalier/core";
import { type DatasetEvent, openDataset } from "@espalier/data";

/** The model that samples are prepared for. */
type Consumer = Pick<Model, "preprocessing" | "classes">;

export interface Task {
  /** Such as "cifar10". */
  readonly name: string;
  /** As it was asked for, such as "cifar10:DIR". */
  readonly spec: string;
  readonly classes: readonly string[];
  readonly objective: Objective["name"];
  /** What models are judged by besides accuracy and loss. */
  readonly measures: readonly Measure[];
  /** Whether the files are those of the published data set. */
  readonly verified: boolean;
  readonly counts: { readonly train: number; readonly test: number };
  /**
   * The training samples for `model`, labelled with its classes.
   *
   * @throws EspalierError `mismatched-model` if samples or classes do not fit the model.
   */
  train(model: Consumer): Samples;
  /** The samples to judge it on; as `train`. */
  test(model: Consumer): Samples;
}

export interface OpenTaskOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: DatasetEvent) => void) | undefined;
}

/**
 * Opens DATA, such as `cifar10`, `cifar10:DIR`, `imagefolder:DIR` or `glue/sst2:DIR`.
 *
 * @throws EspalierError as `openDataset`.
 */
export async function openTask(data: string, options: OpenTaskOptions = {}): Promise<Task> {
  const dataset = await openDataset(data, options);
  const { name, classes, objective, measures, verified, counts } = dataset;
  const labelled = (samples: Samples, model: Consumer) =>
    relabel(samples, labelsOf(classes, model.classes, name));
  return {
    name,
    spec: data,
    classes,
    objective,
    measures,
    verified,
    counts,
    train: (model) => labelled(dataset.train(model.preprocessing), model),
    test: (model) => labelled(dataset.test(model.preprocessing), model),
  };
}

/**
 * The model's label of each class of the data: by name where the model knows all the names, which may
 * be some of its own, and otherwise by position.
 */
function labelsOf(
  classes: readonly string[],
  known: readonly string[],
  name: string,
): readonly number[] | undefined {
  const labels = classes.map((each) => known.indexOf(each));
  if (!labels.includes(-1)) return labels;
  if (classes.length === known.length) return undefined;
  if (known.length === 0) {
    throw new EspalierError(
      "mismatched-model",
      `expected a model of the ${classes.length} classes of ${name}, got one without a head for any task; prune and train give it one, prune with --tune-dense`,
      { expected: classes.length, actual: 0 },
    );
  }
  const some = (list: readonly string[]) => `${list.slice(0, 3).join(", ")} …`;
  throw new EspalierError(
    "mismatched-model",
    `expected a model of the ${classes.length} classes of ${name} (${some(classes)}), got one of ${known.length} (${some(known)})`,
    { expected: classes.length, actual: known.length },
  );
}

function relabel(samples: Samples, labels: readonly number[] | undefined): Samples {
  if (labels === undefined || labels.every((label, i) => label === i)) return samples;
  return {
    ...samples,
    batch: async (indices, augmentation) => {
      const batch = await samples.batch(indices, augmentation);
      return { ...batch, labels: Int32Array.from(batch.labels, (label) => labels[label]) };
    },
  };
}
