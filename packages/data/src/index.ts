export type { DatasetEvent } from "./dataset-event.ts";
export { defaultCacheDirectory } from "./default-cache-directory.ts";
export { type Batch, fillBatch, type Normalization } from "./fill-batch.ts";
export type { ImageDataset, ImageShape, ImageSplit } from "./image-dataset.ts";
export { imageSamples } from "./image-samples.ts";
export { openDataset } from "./open-dataset.ts";
export type { OpenOptions, SourceName } from "./open-options.ts";
