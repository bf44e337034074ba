/** @file Compares files with the sizes and checksums of the published ones. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { describeFileError, EspalierError, hashFile, throwIfAborted } from "@espalier/base";
import { startProgress } from "./dataset-event.ts";
import type { OpenOptions } from "./open-options.ts";

/** A file of a data set as published. */
export interface DatasetFile {
  readonly name: string;
  readonly bytes: number;
  /** Hexadecimal. */
  readonly md5: string;
}

/**
 * The first file in `directory` that is not as published, as an error that says so, or undefined.
 * Compares the sizes of all files first, which is cheap, then checksums.
 *
 * @throws EspalierError `aborted`, or `invalid-argument` where reading is not permitted.
 */
export async function findDifference(
  directory: string,
  files: readonly DatasetFile[],
  { signal, onEvent }: OpenOptions,
): Promise<EspalierError | undefined> {
  try {
    for (const { name, bytes } of files) {
      const path = join(directory, name);
      const { size } = await stat(path).catch((error: unknown) => {
        throw describeFileError(error, path, "read");
      });
      expectEqual(path, "size in bytes", size, bytes);
    }
    const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
    const progress = startProgress("verify", directory, totalBytes, onEvent);
    for (const { name, bytes, md5 } of files) {
      throwIfAborted(signal);
      const path = join(directory, name);
      expectEqual(path, "MD5", await hashFile(path, "md5"), md5);
      progress.advance(bytes);
    }
    progress.end();
    return undefined;
  } catch (error) {
    if (EspalierError.isInstance(error, "missing-file")) return error;
    if (EspalierError.isInstance(error, "invalid-file")) return error;
    throw error;
  }
}

function expectEqual<T>(path: string, property: string, actual: T, expected: T): void {
  if (actual === expected) return;
  throw new EspalierError(
    "invalid-file",
    `${path}: expected the ${property} ${expected}, got ${actual}`,
    { path, property, expected, actual },
  );
}
