/** @file Reads the binary format of CIFAR-10: records of one label byte and the pixels of an image. */
import { open, stat } from "node:fs/promises";
import { describeFileError, EspalierError, throwIfAborted } from "@espalier/base";
import type { ImageShape, ImageSplit } from "./image-dataset.ts";

// Records are read about so many bytes at a time: enough for the disk, little beside the images.
const CHUNK_BYTES = 4 * 1024 ** 2;
// Foreign files beyond this, 700,000 images of CIFAR's size, are refused before memory is taken.
const MAXIMUM_BYTES = 2 ** 31;

/**
 * Reads record files of any length as one split, in the order given. Images and labels go straight
 * to where they stay.
 *
 * @throws EspalierError `missing-file`, `aborted`, or `invalid-file` for a file that is not a whole
 * number of records, at least one, or has a label that is not below `classCount`.
 */
export async function readRecords(
  paths: readonly string[],
  shape: ImageShape,
  classCount: number,
  signal: AbortSignal | undefined,
): Promise<ImageSplit> {
  const imageBytes = shape[0] * shape[1] * shape[2];
  const counts = await Promise.all(paths.map((path) => countRecords(path, 1 + imageBytes)));
  const count = counts.reduce((sum, each) => sum + each, 0);
  if (count * imageBytes > MAXIMUM_BYTES) {
    throw new EspalierError(
      "invalid-file",
      `${paths.join(", ")}: expected at most ${MAXIMUM_BYTES} bytes, got ${count * imageBytes}`,
      { paths, count, maximumBytes: MAXIMUM_BYTES },
    );
  }
  // Shared memory, so that a worker can read it without a copy of its own.
  const images = new Uint8Array(new SharedArrayBuffer(count * imageBytes));
  const labels = new Uint8Array(new SharedArrayBuffer(count));
  let first = 0;
  for (const [index, path] of paths.entries()) {
    const end = first + counts[index]!;
    const target = {
      images: images.subarray(first * imageBytes, end * imageBytes),
      labels: labels.subarray(first, end),
    };
    await readFile(path, target, imageBytes, classCount, signal);
    first = end;
  }
  return { count, shape, images, labels };
}

async function countRecords(path: string, recordBytes: number): Promise<number> {
  const stats = await stat(path).catch((error: unknown) => {
    throw describeFileError(error, path, "read");
  });
  const count = stats.size / recordBytes;
  if (!stats.isFile() || count < 1 || !Number.isInteger(count)) {
    throw new EspalierError(
      "invalid-file",
      `${path}: expected a file of one or more records of ${recordBytes} bytes, got ` +
        (stats.isFile() ? `${stats.size} bytes` : "something else"),
      { path, recordBytes, size: stats.size },
    );
  }
  return count;
}

/** Fills `images` and `labels`, whose lengths say how many records there are. */
async function readFile(
  path: string,
  { images, labels }: Pick<ImageSplit, "images" | "labels">,
  imageBytes: number,
  classCount: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const recordBytes = 1 + imageBytes;
  const chunk = new Uint8Array(Math.max(1, Math.floor(CHUNK_BYTES / recordBytes)) * recordBytes);
  try {
    const handle = await open(path, "r");
    try {
      let record = 0;
      while (record < labels.length) {
        throwIfAborted(signal);
        const wanted = Math.min(chunk.length, (labels.length - record) * recordBytes);
        const { bytesRead } = await handle.read(chunk, 0, wanted);
        if (bytesRead !== wanted) throw new Error("it became shorter meanwhile");
        for (let start = 0; start < wanted; start += recordBytes, record++) {
          const label = chunk[start]!;
          if (label >= classCount) {
            throw new EspalierError(
              "invalid-file",
              `${path}: record ${record}: expected a label below ${classCount}, got ${label}`,
              { path, record, label, classCount },
            );
          }
          labels[record] = label;
          images.set(chunk.subarray(start + 1, start + recordBytes), record * imageBytes);
        }
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw describeFileError(error, path, "read");
  }
}
