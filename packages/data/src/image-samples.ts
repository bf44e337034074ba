/** @file Image data sets as samples for models. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { EspalierError } from "@espalier/base";
import type { ImagePreprocessing, Random, Batch as SampleBatch, Samples } from "@espalier/core";
import { type Batch, makeBatch } from "./fill-batch.ts";
import type { ImageSplit } from "./image-dataset.ts";

// Random crops after padding by this many pixels, and mirror images: the augmentation of He et al.
// 2016 (arXiv 1512.03385, section 4.2).
const PADDING = 4;

/**
 * The images of `split` as a model with this preprocessing takes them, under the input name
 * `pixel_values`. Augmented, each is shifted by up to 4 pixels and mirrored with probability 1/2.
 *
 * Augmented batches are filled by a worker, so that one is prepared while a training step, which
 * keeps this thread busy, runs. The worker does not keep the process alive.
 *
 * @throws EspalierError `mismatched-model` if the images are not of the size that the model takes.
 */
export function imageSamples(split: ImageSplit, preprocessing: ImagePreprocessing): Samples {
  const { shape } = split;
  if (shape.join() !== preprocessing.shape.join()) {
    throw new EspalierError(
      "mismatched-model",
      `expected images of ${preprocessing.shape.join("×")}, the data set has ${shape.join("×")}`,
      { expected: preprocessing.shape, actual: shape },
    );
  }
  let fillInBackground: BackgroundFill | undefined;
  return {
    count: split.count,
    batch: async (indices, augmentation) => {
      if (augmentation === undefined) return asFeeds(makeBatch(split, indices, preprocessing));
      const placements = drawPlacements(indices.length, augmentation);
      fillInBackground ??= startWorker(split, preprocessing);
      return asFeeds(await fillInBackground(indices, placements));
    },
  };
}

function asFeeds({ images, labels }: Batch): SampleBatch {
  return { feeds: { pixel_values: images }, labels };
}

/** dy, dx and mirroring of `count` images. */
function drawPlacements(count: number, random: Random): Int8Array {
  const placements = new Int8Array(3 * count);
  for (let i = 0; i < count; i++) {
    placements[3 * i] = random.integer(2 * PADDING + 1) - PADDING;
    placements[3 * i + 1] = random.integer(2 * PADDING + 1) - PADDING;
    placements[3 * i + 2] = random.integer(2);
  }
  return placements;
}

/** What the worker is asked to fill. */
export interface FillRequest {
  readonly id: number;
  readonly indices: ArrayLike<number>;
  readonly placements: Int8Array;
}

/** What it answers: a batch, or why there is none. */
export type FillReply =
  | { readonly id: number; readonly batch: Batch }
  | { readonly id: number; readonly error: string };

export interface FillWorkerData {
  readonly split: ImageSplit;
  readonly preprocessing: ImagePreprocessing;
}

type BackgroundFill = (indices: ArrayLike<number>, placements: Int8Array) => Promise<Batch>;

function startWorker(split: ImageSplit, preprocessing: ImagePreprocessing): BackgroundFill {
  const path = fileURLToPath(new URL("./fill-worker.js", import.meta.url));
  // Run from its TypeScript sources, the package has no script that a worker could load.
  if (!existsSync(path)) {
    return async (indices, placements) => makeBatch(split, indices, preprocessing, placements);
  }
  const workerData: FillWorkerData = { split, preprocessing };
  const worker = new Worker(path, { workerData });
  worker.unref();
  const pending = new Map<number, { resolve(batch: Batch): void; reject(error: unknown): void }>();
  worker.on("message", (reply: FillReply) => {
    const request = pending.get(reply.id);
    pending.delete(reply.id);
    if (pending.size === 0) worker.unref();
    if ("batch" in reply) request?.resolve(reply.batch);
    else request?.reject(new EspalierError("runtime", `filling a batch: ${reply.error}`));
  });
  worker.on("error", (error) => {
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  });
  let nextId = 0;
  return (indices, placements) =>
    new Promise((resolve, reject) => {
      const request: FillRequest = { id: nextId++, indices: Uint32Array.from(indices), placements };
      pending.set(request.id, { resolve, reject });
      // While an answer is awaited, the process must not end.
      worker.ref();
      worker.postMessage(request);
    });
}
