/** @file Image data sets as samples for models. */
import { EspalierError, startBackground } from "@espalier/base";
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
 * Augmented batches are filled by a worker, so that one is prepared while a training step runs,
 * which keeps this thread busy on some devices. The worker does not keep the process alive.
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
  let fill: ((request: FillRequest) => Promise<Batch>) | undefined;
  return {
    count: split.count,
    batch: async (indices, augmentation) => {
      if (augmentation === undefined) return asFeeds(makeBatch(split, indices, preprocessing));
      const placements = drawPlacements(indices.length, augmentation);
      fill ??= startBackground<FillWorkerData, FillRequest, Batch>(
        new URL("./fill-worker.js", import.meta.url),
        { split, preprocessing },
        fillPlaced,
      );
      return asFeeds(await fill({ indices: Uint32Array.from(indices), placements }));
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

export interface FillWorkerData {
  readonly split: ImageSplit;
  readonly preprocessing: ImagePreprocessing;
}

/** What the worker is asked to fill. */
export interface FillRequest {
  readonly indices: ArrayLike<number>;
  readonly placements: Int8Array;
}

/** What the worker does. */
export async function fillPlaced(
  { split, preprocessing }: FillWorkerData,
  { indices, placements }: FillRequest,
): Promise<Batch> {
  return makeBatch(split, indices, preprocessing, placements);
}
