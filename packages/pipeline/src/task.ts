/** @file The samples that a model is pruned, tuned and judged on. */
import { EspalierError } from "@espalier/base";
import {
  type Measure,
  type Model,
  type Objective,
  objectiveOf,
  type Samples,
} from "@espalier/core";
import { type DatasetEvent, openDataset } from "@espalier/data";
import type { ClassesEvent } from "./events.ts";

/** The model that samples are prepared for. */
type Consumer = Pick<Model, "preprocessing" | "classes" | "objective">;

export interface Task {
  /** Such as "cifar10". */
  readonly name: string;
  /** As it was asked for, such as "cifar10:DIR". */
  readonly spec: string;
  /** Where its files are, if that was said. */
  readonly directory?: string | undefined;
  readonly classes: readonly string[];
  readonly objective: Objective["name"];
  /** What models are judged by besides accuracy and loss. */
  readonly measures: readonly Measure[];
  /** Whether the files are those of the published data set. */
  readonly verified: boolean;
  readonly counts: { readonly train: number; readonly test: number };
  /** SHA-256, hexadecimal, that tells its samples from others of the same name, as a data set's. */
  digest(): Promise<string>;
  /**
   * The number that `model` has for each class; undefined where they are the same.
   *
   * @throws EspalierError `mismatched-model`.
   */
  classesIn(model: Consumer): readonly number[] | undefined;
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
  readonly onEvent?: ((event: DatasetEvent | ClassesEvent) => void) | undefined;
}

/**
 * Opens DATA, such as `cifar10`, `cifar10:DIR`, `imagefolder:DIR`, `textfolder:DIR` or `glue/sst2:DIR`.
 *
 * @throws EspalierError as `openDataset`.
 */
export async function openTask(data: string, options: OpenTaskOptions = {}): Promise<Task> {
  const dataset = await openDataset(data, options);
  const { name, classes, objective, measures, verified, counts } = dataset;
  // It reads all samples, and is asked for by every run.
  let digest: Promise<string> | undefined;
  const noted = new Set<string>();
  const classesIn = (model: Consumer) => {
    const labels = labelsOf({ name, classes, objective }, model);
    const [[ours], [theirs]] = [classes, model.classes];
    const differ = plain(ours) !== plain(theirs) && !isPlaceholder(theirs);
    if (objective === "classification" && labels === undefined && differ && !noted.has(theirs)) {
      noted.add(theirs);
      options.onEvent?.({
        type: "classes-by-position",
        data: name,
        first: { data: ours, model: theirs },
      });
    }
    return labels;
  };
  return {
    name,
    spec: data,
    directory: data.includes(":") ? data.slice(data.indexOf(":") + 1) : undefined,
    classes,
    objective,
    measures,
    verified,
    counts,
    digest: () => {
      digest ??= dataset.digest();
      return digest;
    },
    classesIn,
    train: (model) => relabel(dataset.train(model.preprocessing), classesIn(model)),
    test: (model) => relabel(dataset.test(model.preprocessing), classesIn(model)),
  };
}

// Names of classes that say nothing, such as LABEL_1 and 1.
const isPlaceholder = (name: string) => /^(label|class)?[ _-]?\d+$/i.test(name);

/** As files of different origin write the same name. */
const plain = (name: string) => name.toLowerCase().replace(/[ _-]/g, "");

/**
 * The model's label of each class of the data: by name where the model knows all the names, which may
 * be some of its own, and otherwise by position. Folders of images may be called by other names than a
 * model's classes, as ImageNet's are by WordNet's numbers. The classes of a task of texts are always
 * called the same, so that a model of other names is one of another task, unless one side has numbers
 * alone; texts that are numbered may lack the model's last classes.
 *
 * @throws EspalierError `mismatched-model`.
 */
export function labelsOf(
  { name, classes, objective }: Pick<Task, "name" | "classes" | "objective">,
  model: Consumer,
): readonly number[] | undefined {
  const { classes: known, preprocessing } = model;
  const actual = objectiveOf(model).name;
  if (known.length > 0 && actual !== objective) {
    throw new EspalierError(
      "mismatched-model",
      `expected a model for the ${objective} of ${name}, got one for ${actual}`,
      { expected: objective, actual },
    );
  }
  const labels = positions(classes, known);
  if (!labels.includes(-1)) return labels.every((label, i) => label === i) ? undefined : labels;
  if (known.length === 0) {
    throw new EspalierError(
      "mismatched-model",
      `expected a model of the ${classes.length} classes of ${name}, got one without a head for any task; prune and train give it one, prune with --tune-dense`,
      { expected: classes.length, actual: 0 },
    );
  }
  const isNumbered = classes.length > 1 && classes.every((each, i) => each === String(i));
  if (preprocessing.kind === "text" && isNumbered && classes.length < known.length)
    return undefined;
  const others =
    preprocessing.kind === "text" && classes.length > 1
      ? ![known, classes].some((names) => names.every(isPlaceholder))
      : labels.some((label) => label !== -1);
  if (classes.length === known.length && !others) return undefined;
  const some = (list: readonly string[]) =>
    list.length > 3 ? `${list.slice(0, 3).join(", ")} …` : list.join(", ");
  throw new EspalierError(
    "mismatched-model",
    `expected a model of the ${classes.length} classes of ${name} (${some(classes)}), got one of ${known.length} (${some(known)})`,
    { expected: classes, actual: known },
  );
}

/** Where each of `names` is in `known`, -1 if it is not: as it is written, or else as others write it. */
function positions(names: readonly string[], known: readonly string[]): number[] {
  const exact = names.map((name) => known.indexOf(name));
  if (!exact.includes(-1)) return exact;
  const [ours, theirs] = [names.map(plain), known.map(plain)];
  // Grades such as "A" and "A-" are told apart by what is not plain.
  const isUnique = (name: string) =>
    [ours, theirs].every((list) => list.indexOf(name) === list.lastIndexOf(name));
  return ours.every(isUnique) ? ours.map((name) => theirs.indexOf(name)) : exact;
}

function relabel(samples: Samples, labels: readonly number[] | undefined): Samples {
  if (labels === undefined) return samples;
  return {
    ...samples,
    batch: async (indices, augmentation) => {
      const batch = await samples.batch(indices, augmentation);
      return { ...batch, labels: Int32Array.from(batch.labels, (label) => labels[label]) };
    },
  };
}
