/** @file The samples that a model is pruned, tuned and judged on. */
import type { ImagePreprocessing, Samples } from "@espalier/core";
import { type DatasetEvent, type ImageDataset, imageSamples, openDataset } from "@espalier/data";

export interface Task {
  /** Such as "cifar10". */
  readonly name: string;
  /** As it was asked for, such as "cifar10:DIR". */
  readonly spec: string;
  readonly classes: readonly string[];
  /** Whether the files are those of the published data set. */
  readonly verified: boolean;
  readonly trainCount: number;
  readonly testCount: number;
  train(preprocessing: ImagePreprocessing): Samples;
  test(preprocessing: ImagePreprocessing): Samples;
}

export interface OpenTaskOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: DatasetEvent) => void) | undefined;
}

/** Opens DATA, such as `cifar10` or `cifar10:DIR`. @throws EspalierError as `openDataset`. */
export async function openTask(data: string, options: OpenTaskOptions = {}): Promise<Task> {
  const dataset: ImageDataset = await openDataset(data, options);
  const { name, classes, verified, splits } = dataset;
  return {
    name,
    spec: data,
    classes,
    verified,
    trainCount: splits.train.count,
    testCount: splits.test.count,
    train: (preprocessing) => imageSamples(splits.train, preprocessing),
    test: (preprocessing) => imageSamples(splits.test, preprocessing),
  };
}
