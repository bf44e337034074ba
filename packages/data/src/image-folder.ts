/** @file A folder of images in ImageNet's layout: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`. */
import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { describeFileError, EspalierError, throwIfAborted } from "@espalier/base";
import { type FolderSplit, folderSamples } from "./folder-samples.ts";
import type { ImageDataset } from "./image-dataset.ts";
import type { OpenOptions } from "./open-options.ts";

// What the halves of a data set are called, in order of preference.
const HALVES = { train: ["train"], test: ["val", "validation", "test"] } as const;
const IMAGE = /\.(jpe?g|png|webp)$/i;

/**
 * Opens a folder of JPEG, PNG and WebP images. Classes are the names of the folders in `train`, in
 * the order of their code points. Images are decoded when they are asked for.
 *
 * @throws EspalierError `missing-file` if there is no `train` or `val` (or `validation`, `test`);
 *   `invalid-file` for fewer than two classes, a class without images, and a class in `val` that
 *   `train` does not have; `aborted`.
 */
export async function openImageFolder(
  directory: string,
  options: OpenOptions = {},
): Promise<ImageDataset> {
  const entries = new Set((await list(directory)).map(({ name }) => name.toString()));
  const half = (names: readonly string[]) => {
    const found = names.find((name) => entries.has(name));
    if (found !== undefined) return join(directory, found);
    throw new EspalierError(
      "missing-file",
      `${directory}: expected folders ${HALVES.train[0]} and ${HALVES.test.join(" or ")}, with a folder for each class`,
      { path: directory },
    );
  };
  const [trainPath, testPath] = [half(HALVES.train), half(HALVES.test)];
  const classes = await classesOf(trainPath);
  if (classes.length < 2) {
    throw new EspalierError(
      "invalid-file",
      `${trainPath}: expected a folder for each of two classes or more, got ${classes.length}`,
      { path: trainPath, classes },
    );
  }
  const unknown = (await classesOf(testPath)).find((name) => !classes.includes(name));
  if (unknown !== undefined) {
    throw new EspalierError(
      "invalid-file",
      `${join(testPath, unknown)}: ${trainPath} has no such class`,
      { path: testPath, class: unknown },
    );
  }
  const train = await scan(trainPath, classes, options);
  const test = await scan(testPath, classes, options);
  const onSkip = (path: string, message: string) => {
    const error = new EspalierError("invalid-file", message, { path });
    options.onEvent?.({ type: "image-skip", subject: path, error });
  };
  return {
    name: basename(directory),
    classes,
    verified: false,
    counts: { train: train.paths.length, test: test.paths.length },
    digest: () => digestOf([train, test]),
    train: (preprocessing) => folderSamples(train, preprocessing, onSkip),
    test: (preprocessing) => folderSamples(test, preprocessing, onSkip),
  };
}

// Sizes are asked for side by side, of so many images at a time.
const SIZES_AT_ONCE = 256;

async function digestOf(splits: readonly FolderSplit[]): Promise<string> {
  const hash = createHash("sha256");
  for (const { directory, paths, labels } of splits) {
    hash.update(`${paths.length}\n`);
    for (let first = 0; first < paths.length; first += SIZES_AT_ONCE) {
      const some = paths.slice(first, first + SIZES_AT_ONCE);
      // What is not there is skipped when it is read.
      const sizes = await Promise.all(
        some.map((path) =>
          stat(path).then(
            ({ size }) => size,
            () => null,
          ),
        ),
      );
      for (const [i, path] of some.entries()) {
        const name = relative(directory, path).replaceAll(sep, "/");
        hash.update(`${JSON.stringify([name, sizes[i], labels[first + i]])}\n`);
      }
    }
  }
  return hash.digest("hex");
}

async function list(directory: string): Promise<readonly Dirent<Buffer>[]> {
  return readdir(directory, { withFileTypes: true, encoding: "buffer" }).catch((error: unknown) => {
    throw describeFileError(error, directory, "read");
  });
}

/** The names of the folders in `path`. */
async function classesOf(path: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await list(path)) {
    if (!isFolder(entry)) continue;
    if (!isUtf8(entry.name)) {
      throw new EspalierError(
        "invalid-file",
        `${path}: expected names in UTF-8, got ${JSON.stringify(entry.name.toString())}`,
        { path },
      );
    }
    names.push(entry.name.toString());
  }
  return names.sort();
}

// A link may lead to a folder; what else it leads to shows when it is read.
function isFolder(entry: Dirent<Buffer>): boolean {
  return (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.toString().startsWith(".");
}

/** The images of all classes, those of a class in the order of their names. */
async function scan(
  path: string,
  classes: readonly string[],
  { signal, onEvent }: OpenOptions,
): Promise<FolderSplit> {
  const paths: string[] = [];
  const labels: number[] = [];
  for (const [label, name] of classes.entries()) {
    throwIfAborted(signal);
    const folder = join(path, name);
    // A class need not be in both halves.
    const entries = await list(folder).catch((error: unknown) => {
      if (EspalierError.isInstance(error, "missing-file")) return [];
      throw error;
    });
    const images: string[] = [];
    for (const entry of entries) {
      const file = entry.name.toString();
      if (file.startsWith(".") || entry.isDirectory() || !IMAGE.test(file)) continue;
      if (isUtf8(entry.name)) images.push(file);
      else {
        const subject = join(folder, file);
        const error = new EspalierError("invalid-file", `${subject}: expected a name in UTF-8`);
        onEvent?.({ type: "image-skip", subject, error });
      }
    }
    if (entries.length > 0 && images.length === 0) {
      throw new EspalierError(
        "invalid-file",
        `${folder}: expected JPEG, PNG or WebP images, got none`,
        { path: folder },
      );
    }
    for (const file of images.sort()) {
      paths.push(join(folder, file));
      labels.push(label);
    }
  }
  if (paths.length === 0) {
    throw new EspalierError("invalid-file", `${path}: expected images, got none`, { path });
  }
  return { directory: path, paths, labels: Uint32Array.from(labels) };
}
