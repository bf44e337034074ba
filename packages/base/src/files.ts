/** @file Files that are either whole or not there. */
import { createHash, randomBytes } from "node:crypto";
import type { Stats } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { EspalierError } from "./error.ts";
import { parseJson } from "./json.ts";

/**
 * What the name of a file or directory ends with until it is complete. A stopped program may leave one;
 * it is safe to delete.
 */
export const PARTIAL_SUFFIX = ".partial";

/** Whether `entry` is what a stopped program may have left of the file or directory `name`. */
export function isPartial(entry: string, name: string): boolean {
  // Earlier versions have written files, too, under the name alone with the suffix.
  return entry.startsWith(name) && /^(\.[0-9a-f]{12})?\.partial$/.test(entry.slice(name.length));
}

/**
 * Writes `chunks` to `path` so that the name `path` never stands for an incomplete file: into a partial
 * file of its own, flushed to the disk, then renamed. Of several writers at once, the last to finish
 * stays. Creates missing directories.
 *
 * @throws EspalierError `disk-full` or `invalid-argument`, naming the file; nothing is left behind.
 */
export async function writeFileAtomic(
  path: string,
  chunks: string | Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  // Not of the process's number: its threads share that, and in another container it comes again.
  const partial = `${path}.${randomBytes(6).toString("hex")}${PARTIAL_SUFFIX}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(partial, "wx");
    try {
      if (typeof chunks === "string" || chunks instanceof Uint8Array) {
        await handle.writeFile(chunks);
      } else {
        for await (const chunk of chunks) await handle.writeFile(chunk);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {});
    throw describeFileError(error, path, "write");
  }
}

/** Writes `value` as indented JSON with a final newline; atomic as `writeFileAtomic`. */
export async function writeJsonAtomic(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, undefined, 2)}\n`);
}

/**
 * Has `write` fill a directory, which appears under the name `path` when it is complete. What a stopped
 * program has left of it is removed first.
 *
 * @throws EspalierError as `writeFileAtomic`, and what `write` throws.
 */
export async function writeDirectoryAtomic(
  path: string,
  write: (partial: string) => Promise<void>,
): Promise<void> {
  const partial = path + PARTIAL_SUFFIX;
  await removePath(partial);
  try {
    await mkdir(partial, { recursive: true });
  } catch (error) {
    throw describeFileError(error, path, "write");
  }
  await write(partial);
  await movePath(partial, path);
}

/** Renames a file or directory. @throws EspalierError naming where it could not be moved to. */
export async function movePath(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    throw describeFileError(error, to, "write");
  }
}

/** Removes a file or a directory with all that is in it, if it is there. @throws EspalierError naming it. */
export async function removePath(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    throw describeFileError(error, path, "write");
  }
}

/**
 * The names of what is in a directory; none where there is no such directory.
 *
 * @throws EspalierError naming it, such as `invalid-argument` for a file.
 */
export async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    if (code !== "ENOTDIR") throw describeFileError(error, path, "read");
    throw new EspalierError(
      "invalid-argument",
      `${path}: expected a directory, got a file`,
      { path },
      error,
    );
  }
}

/**
 * @param maximumBytes Larger files are refused before they are read, since they come from outside.
 * @throws EspalierError `missing-file`, or `invalid-file` for a file that is too large, not JSON, or
 *   beyond what `parseJson` takes.
 */
export async function readJson(path: string, maximumBytes = 256 * 1024 * 1024): Promise<unknown> {
  let text: string;
  try {
    const handle = await openFile(path);
    try {
      const { size } = await handle.stat();
      if (size > maximumBytes) {
        throw new EspalierError(
          "invalid-file",
          `${path}: expected at most ${maximumBytes} bytes of JSON, got ${size}`,
          { path, size, maximumBytes },
        );
      }
      text = await handle.readFile("utf8");
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw describeFileError(error, path, "read");
  }
  try {
    return parseJson(text);
  } catch (error) {
    throw new EspalierError(
      "invalid-file",
      `${path}: expected JSON: ${(error as Error).message}`,
      { path },
      error,
    );
  }
}

/** Reads a whole file. @throws EspalierError `missing-file` or `invalid-file`, naming the file. */
export async function readBytes(path: string): Promise<Uint8Array> {
  const handle = await openFile(path);
  try {
    return await handle.readFile();
  } catch (error) {
    throw describeFileError(error, path, "read");
  } finally {
    await handle.close();
  }
}

/** Hexadecimal digest of a file's content, read in pieces. */
export async function hashFile(path: string, algorithm: "md5" | "sha256"): Promise<string> {
  const hash = createHash(algorithm);
  // The stream closes it.
  const handle = await openFile(path);
  try {
    for await (const chunk of handle.createReadStream()) hash.update(chunk as Uint8Array);
  } catch (error) {
    throw describeFileError(error, path, "read");
  }
  return hash.digest("hex");
}

/** Opens a regular file for reading. @throws EspalierError as `statFile`. */
export async function openFile(path: string): Promise<FileHandle> {
  await statFile(path);
  return open(path, "r").catch((error: unknown) => {
    throw describeFileError(error, path, "read");
  });
}

/**
 * What the file system says of a regular file. Files from outside are looked at before they are opened:
 * opening a FIFO waits for who writes it, in a thread that nothing interrupts.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` for what is not a regular file.
 */
export async function statFile(path: string): Promise<Stats> {
  const stats = await stat(path).catch((error: unknown) => {
    throw describeFileError(error, path, "read");
  });
  if (stats.isFile()) return stats;
  throw new EspalierError("invalid-file", `${path}: expected a file, got ${kindOf(stats)}`, {
    path,
  });
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a FIFO";
  return stats.isSocket() ? "a socket" : "a device";
}

/** Turns an error of Node's file system into one of ours that names `path`; passes ours through. */
export function describeFileError(
  error: unknown,
  path: string,
  action: "read" | "write",
): EspalierError {
  if (EspalierError.isInstance(error)) return error;
  const code = (error as NodeJS.ErrnoException).code;
  const data = { path, errno: code };
  switch (code) {
    case "ENOENT":
      return new EspalierError("missing-file", `${path}: no such file or directory`, data, error);
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new EspalierError("disk-full", `${path}: no space left to ${action}`, data, error);
    case "EISDIR":
      return new EspalierError(
        "invalid-file",
        `${path}: expected a file, got a directory`,
        data,
        error,
      );
    case "ENOTDIR":
      return new EspalierError("invalid-file", `${path}: part of the path is a file`, data, error);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new EspalierError(
        "invalid-argument",
        `${path}: not permitted to ${action}`,
        data,
        error,
      );
    default:
      return new EspalierError(
        "invalid-file",
        `${path}: could not ${action}: ${error instanceof Error ? error.message : String(error)}`,
        data,
        error,
      );
  }
}
