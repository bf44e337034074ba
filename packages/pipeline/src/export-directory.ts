/** @file Where an export is written, in place of an earlier one if so asked. */
import { join } from "node:path";
import {
  EspalierError,
  listDirectory,
  movePath,
  PARTIAL_SUFFIX,
  readBytes,
  removePath,
} from "@espalier/base";
import { decodeOnnx } from "@espalier/graph";
import { exportedNames, onnxFiles } from "./export.ts";
import { expectEmpty, expectOnly, expectOutside } from "./output-directory.ts";

const CONFIG = "config.json";
// It lies inside, since a directory that is worked in or mounted cannot be exchanged for another.
const UNFINISHED = `export${PARTIAL_SUFFIX}`;

export interface ExportDirectoryOptions {
  /** Replace an earlier export, whole or not. */
  readonly overwrite: boolean;
  /** Files and directories that are read meanwhile. */
  readonly inputs: readonly string[];
  /** Names of the files that go with models. */
  readonly files: readonly string[];
}

/**
 * Has `write` make an export that then appears in `directory`, which is new or empty, or has an earlier
 * export to be replaced. That one stays until the new one is complete.
 *
 * @throws EspalierError `occupied-directory` for a directory that has something else, `invalid-argument`
 *   for one that has an input, and what `write` throws.
 */
export async function writeExport<T>(
  directory: string,
  options: ExportDirectoryOptions,
  write: (partial: string) => Promise<T>,
): Promise<T> {
  if (options.overwrite) await expectReplaceable(directory, options);
  else await expectEmpty(directory, "--overwrite replaces an earlier export");
  const partial = join(directory, UNFINISHED);
  await removePath(partial);
  try {
    const result = await write(partial);
    const before = (await listDirectory(directory)).filter((name) => name !== UNFINISHED);
    // A directory that has a configuration is complete: it goes first and comes last.
    const isConfig = (name: string) => Number(name === CONFIG);
    for (const name of before.toSorted((a, b) => isConfig(b) - isConfig(a))) {
      await removePath(join(directory, name));
    }
    const after = await listDirectory(partial);
    for (const name of after.toSorted((a, b) => isConfig(a) - isConfig(b))) {
      await movePath(join(partial, name), join(directory, name));
    }
    return result;
  } finally {
    await removePath(partial);
  }
}

async function expectReplaceable(
  directory: string,
  { inputs, files }: ExportDirectoryOptions,
): Promise<void> {
  await expectOutside(directory, inputs);
  await expectOnly(directory, [...exportedNames, ...files, UNFINISHED], "an earlier export");
  const entries = await listDirectory(directory);
  if (entries.length === 0) return;
  // ONNX files come first and the configuration last. Models of others have files of these names, too.
  const isExport = entries.includes(CONFIG)
    ? await isOurs(join(directory, onnxFiles.fp32))
    : entries.includes("onnx") || entries.includes(UNFINISHED);
  if (isExport) return;
  throw new EspalierError(
    "occupied-directory",
    `${directory}: expected an earlier export, which would be replaced, found a model that is none`,
    { directory },
  );
}

/** Whether the file is an ONNX model that an export has written. */
async function isOurs(path: string): Promise<boolean> {
  try {
    const { metadata } = decodeOnnx(await readBytes(path), path);
    return Object.hasOwn(metadata, "espalier.source");
  } catch (error) {
    if (EspalierError.isInstance(error)) return false;
    throw error;
  }
}
