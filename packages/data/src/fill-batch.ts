/** @file Normalises images into the input of a network. */
import { EspalierError } from "@espalier/base";
import type { ImageSplit } from "./image-dataset.ts";

/** Per-channel constants for pixels scaled to 0–1; they belong to a trained network. */
export interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

export interface Batch {
  /** [n, channels, height, width]. */
  readonly images: Float32Array;
  /** [n]. */
  readonly labels: Int32Array;
}

/**
 * Fills `batch` with the images `indices` of `split`, as (pixel / 255 − mean) / std, and their
 * labels.
 *
 * @param placements For each image dy, dx and whether to mirror: [n, 3]. The output pixel (y, x) is
 * the image's (y + dy, x + dx), or 0 before normalisation outside the image; then columns are
 * reversed where the third number is not 0. torchvision's RandomCrop(size, padding=4) followed by
 * RandomHorizontalFlip draws dy and dx from −4…4.
 * @throws EspalierError `invalid-argument` for lengths that do not fit, or an index outside `split`.
 */
export function fillBatch(
  split: ImageSplit,
  indices: ArrayLike<number>,
  normalization: Normalization,
  batch: Batch,
  placements?: Int8Array,
): void {
  const [channels, height, width] = split.shape;
  const plane = height * width;
  const count = indices.length;
  expectLength("batch.images", batch.images, count * channels * plane);
  expectLength("batch.labels", batch.labels, count);
  expectLength("normalization.mean", normalization.mean, channels);
  expectLength("normalization.std", normalization.std, channels);
  if (placements) expectLength("placements", placements, count * 3);

  for (const [channel, std] of normalization.std.entries()) {
    if (!(std > 0)) {
      throw new EspalierError(
        "invalid-argument",
        `normalization.std[${channel}]: expected a number above 0, got ${std}`,
        { channel, std },
      );
    }
  }
  const tables = normalization.mean.map((mean, channel) =>
    Float32Array.from(
      { length: 256 },
      (_, pixel) => (pixel / 255 - mean) / normalization.std[channel]!,
    ),
  );
  for (let n = 0; n < count; n++) {
    const index = indices[n]!;
    if (!Number.isInteger(index) || index < 0 || index >= split.count) {
      throw new EspalierError(
        "invalid-argument",
        `indices[${n}]: expected an integer from 0 to ${split.count - 1}, got ${index}`,
        { position: n, index, count: split.count },
      );
    }
    batch.labels[n] = split.labels[index]!;
    const dy = placements?.[3 * n] ?? 0;
    const dx = placements?.[3 * n + 1] ?? 0;
    const flip = (placements?.[3 * n + 2] ?? 0) !== 0;
    placeImage(split, index, tables, batch.images, n, dy, dx, flip);
  }
}

/** A new batch of the images `indices`; see `fillBatch`. */
export function makeBatch(
  split: ImageSplit,
  indices: ArrayLike<number>,
  normalization: Normalization,
  placements?: Int8Array,
): Batch {
  const [channels, height, width] = split.shape;
  const count = indices.length;
  const images = new Float32Array(count * channels * height * width);
  const batch = { images, labels: new Int32Array(count) };
  fillBatch(split, indices, normalization, batch, placements);
  return batch;
}

/** Writes image `index` of `split` as image `n` of `out`. */
function placeImage(
  { images, shape: [channels, height, width] }: ImageSplit,
  index: number,
  tables: readonly Float32Array[],
  out: Float32Array,
  n: number,
  dy: number,
  dx: number,
  flip: boolean,
): void {
  // The columns of the output that show the image.
  const left = Math.min(Math.max(-dx, 0), width);
  const right = Math.max(Math.min(width - dx, width), left);
  const step = flip ? -1 : 1;
  for (let channel = 0; channel < channels; channel++) {
    const table = tables[channel]!;
    const padding = table[0]!;
    const source = (index * channels + channel) * height;
    const target = (n * channels + channel) * height;
    for (let y = 0; y < height; y++) {
      const start = (target + y) * width;
      if (y + dy < 0 || y + dy >= height) {
        out.fill(padding, start, start + width);
        continue;
      }
      const from = (source + y + dy) * width + dx;
      let to = flip ? start + width - 1 : start;
      let x = 0;
      for (; x < left; x++, to += step) out[to] = padding;
      for (; x < right; x++, to += step) out[to] = table[images[from + x]!]!;
      for (; x < width; x++, to += step) out[to] = padding;
    }
  }
}

function expectLength(name: string, { length }: ArrayLike<number>, expected: number): void {
  if (length !== expected) {
    throw new EspalierError(
      "invalid-argument",
      `${name}: expected ${expected} numbers, got ${length}`,
      { name, expected, length },
    );
  }
}
