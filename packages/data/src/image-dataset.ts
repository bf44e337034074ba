/** @file What every image data set looks like once it is open. */
import type { ImagePreprocessing, Samples } from "@espalier/core";

/** Size of one image: channels, height, width. */
export type ImageShape = readonly [channels: number, height: number, width: number];

/** Images of one size in memory. */
export interface ImageSplit {
  readonly count: number;
  readonly shape: ImageShape;
  /** Raw pixels 0–255, [count, channels, height, width]. */
  readonly images: Uint8Array;
  /** Index into the data set's `classes`, [count]. */
  readonly labels: Uint8Array;
}

export interface ImageDataset {
  readonly name: string;
  /** Label names; a label is a position in this list. */
  readonly classes: readonly string[];
  /** Whether every file has the checksum of the published data set. */
  readonly verified: boolean;
  /** How many images there are. */
  readonly counts: { readonly train: number; readonly test: number };
  /** As that of `Dataset`. */
  digest(): Promise<string>;
  /**
   * The training images as a model with this preprocessing takes them, under the input name
   * `pixel_values`.
   *
   * @throws EspalierError `mismatched-model` if the images cannot be made what the model takes.
   */
  train(preprocessing: ImagePreprocessing): Samples;
  /** The images to judge a model on; as `train`. */
  test(preprocessing: ImagePreprocessing): Samples;
}
