/** @file Images in files as samples for models, decoded when they are asked for. */
import { EspalierError, startBackground } from "@espalier/base";
import type { ImagePreprocessing, Random, Samples } from "@espalier/core";
import { cutCentre, cutRandom, type Region } from "./decode-image.ts";
import { describeImageError } from "./open-image.ts";

/** The images of one half of a data set. */
export interface FolderSplit {
  readonly directory: string;
  readonly paths: readonly string[];
  /** The class of each. */
  readonly labels: Uint32Array;
}

// Of the images of a split, at most this share may be unreadable, but a few always may.
const UNREADABLE_SHARE = 0.01;
const UNREADABLE_FEW = 3;
// How many images in a row are tried in place of one that cannot be read.
const SUBSTITUTE_ATTEMPTS = 10;
// Regions that are drawn for a random cut until one fits, as torchvision's RandomResizedCrop does.
const REGION_ATTEMPTS = 10;

/**
 * The images of `split` at the size that a model with this preprocessing takes. Augmented, a random
 * part of each is scaled to that size, and mirrored with probability 1/2; otherwise it is the centre.
 *
 * A worker decodes, so that a batch is prepared while another is computed with. Images that cannot be read
 * are reported once and replaced by the next in the same order.
 *
 * @throws EspalierError `mismatched-model` unless the model takes images of three channels; `batch`
 *   throws `invalid-file` when too many images cannot be read.
 */
export function folderSamples(
  split: FolderSplit,
  preprocessing: ImagePreprocessing,
  onSkip: (path: string, message: string) => void,
): Samples {
  if (preprocessing.shape[0] !== 3) {
    throw new EspalierError(
      "mismatched-model",
      `expected a model for images of 3 channels, got one for ${preprocessing.shape[0]}`,
      { expected: 3, actual: preprocessing.shape[0] },
    );
  }
  const skipped = new Map<string, string>();
  const most = Math.max(UNREADABLE_FEW, Math.floor(UNREADABLE_SHARE * split.paths.length));
  let decode: ((request: DecodeRequest) => Promise<Decoded>) | undefined;
  return {
    count: split.paths.length,
    batch: async (indices, augmentation) => {
      decode ??= startBackground<DecodeWorkerData, DecodeRequest, Decoded>(
        new URL("./decode-worker.js", import.meta.url),
        { split, preprocessing },
        decodeBatch,
      );
      const { pixels, labels, failures } = await decode({
        indices: Uint32Array.from(indices),
        cuts: augmentation && drawCuts(indices.length, augmentation),
      });
      for (const { path, message } of failures) {
        if (!skipped.has(path)) onSkip(path, message);
        skipped.set(path, message);
      }
      if (skipped.size > most) {
        const [message] = skipped.values();
        throw new EspalierError(
          "invalid-file",
          `${split.directory}: expected at most ${most} of ${split.paths.length} images that cannot be read, got ${skipped.size}, such as ${message}`,
          { path: split.directory, skipped: [...skipped.keys()] },
        );
      }
      const substitutes = new Set(failures.map(({ row }) => row));
      return { feeds: { pixel_values: pixels }, labels, substitutes };
    },
  };
}

/** How one image is cut at random. */
interface RandomCut {
  readonly regions: readonly Region[];
  readonly mirrored: boolean;
}

/** For `count` images; torchvision's defaults: 8 to 100 % of the area, at ratios from 3:4 to 4:3. */
function drawCuts(count: number, random: Random): RandomCut[] {
  return Array.from({ length: count }, () => ({
    regions: Array.from({ length: REGION_ATTEMPTS }, () => ({
      area: 0.08 + 0.92 * random.uniform(),
      ratio: Math.exp((2 * random.uniform() - 1) * Math.log(4 / 3)),
      x: random.uniform(),
      y: random.uniform(),
    })),
    mirrored: random.uniform() < 0.5,
  }));
}

export interface DecodeWorkerData {
  readonly split: FolderSplit;
  readonly preprocessing: ImagePreprocessing;
}

export interface DecodeRequest {
  readonly indices: Uint32Array;
  readonly cuts: readonly RandomCut[] | undefined;
}

export interface Decoded {
  /** [n, 3, height, width], normalised. */
  readonly pixels: Float32Array;
  readonly labels: Int32Array;
  /** Files that could not be read, and the rows that got others instead. */
  readonly failures: readonly {
    readonly path: string;
    readonly row: number;
    readonly message: string;
  }[];
}

/** What the worker does. */
export async function decodeBatch(
  { split, preprocessing }: DecodeWorkerData,
  { indices, cuts }: DecodeRequest,
): Promise<Decoded> {
  const { paths, labels: classes } = split;
  const { shape, mean, std, crop = 1 } = preprocessing;
  const [channels, height, width] = shape;
  const plane = height * width;
  const pixels = new Float32Array(indices.length * channels * plane);
  const labels = new Int32Array(indices.length);
  const failures: { path: string; row: number; message: string }[] = [];
  // pixel / 255 - mean, divided by std, of all values that a byte has.
  const tables = mean.map((average, channel) =>
    Float32Array.from({ length: 256 }, (_, byte) => (byte / 255 - average) / std[channel]),
  );
  const place = (image: Uint8Array, row: number) => {
    for (let channel = 0; channel < channels; channel++) {
      const target = (row * channels + channel) * plane;
      const table = tables[channel];
      for (let i = 0; i < plane; i++) pixels[target + i] = table[image[i * channels + channel]];
    }
  };
  const fill = async (row: number): Promise<void> => {
    for (let attempt = 0; attempt < SUBSTITUTE_ATTEMPTS; attempt++) {
      const index = (indices[row] + attempt) % paths.length;
      try {
        const cut = cuts?.[row];
        const image =
          cut === undefined
            ? await cutCentre(paths[index], { height, width, crop })
            : await cutRandom(paths[index], { height, width, ...cut });
        labels[row] = classes[index];
        place(image, row);
        return;
      } catch (error) {
        failures.push({
          path: paths[index],
          row,
          message: describeImageError(error, paths[index]),
        });
      }
    }
  };
  await Promise.all(Array.from(indices, (_, row) => fill(row)));
  // Images are decoded side by side; what is reported must not depend on which ended first.
  failures.sort((a, b) => a.row - b.row);
  return { pixels, labels, failures };
}
