/** @file What every image data set looks like once it is open. */

/** Size of one image: channels, height, width. */
export type ImageShape = readonly [channels: number, height: number, width: number];

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
  readonly shape: ImageShape;
  /** Whether every file has the checksum of the published data set. */
  readonly verified: boolean;
  readonly splits: { readonly train: ImageSplit; readonly test: ImageSplit };
}
