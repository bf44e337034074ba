/** @file One process at a time works in a run directory. */
import { mkdir, realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  describeFileError,
  EspalierError,
  listDirectory,
  ownerOf,
  ownName,
  removePath,
} from "@espalier/base";

const PREFIX = "run.lock-";

/** Whether a file of a run directory is a lock. */
export function isLock(name: string): boolean {
  return name.startsWith(PREFIX) && ownerOf(name.slice(PREFIX.length)) !== undefined;
}

// Processes have files of their own, but this one may ask twice.
const held = new Set<string>();

/**
 * Keeps other processes out of `directory`, which is made if it is not there, until what is returned is
 * called.
 *
 * Every process writes a file with its own name before it looks for those of others, so that of two at
 * least one sees the other. What a killed process has left can be removed by everyone, as nobody else
 * writes a file of that name.
 *
 * @throws EspalierError `occupied-directory` naming the file of a process that is running or, being on
 *   another machine, may be.
 */
export async function lockRun(directory: string): Promise<() => Promise<void>> {
  const own = PREFIX + ownName();
  let path: string;
  try {
    await mkdir(directory, { recursive: true });
    path = join(await realpath(directory), own);
    if (held.has(path)) throw occupied(directory, own);
    await writeFile(path, "");
  } catch (error) {
    throw describeFileError(error, directory, "write");
  }
  held.add(path);
  const release = async () => {
    held.delete(path);
    await removePath(path);
  };
  try {
    for (const name of (await listDirectory(directory)).filter(isLock)) {
      if (name === own) continue;
      if (ownerOf(name.slice(PREFIX.length))?.state !== "ended") throw occupied(directory, name);
      await removePath(join(directory, name));
    }
  } catch (error) {
    await release();
    throw error;
  }
  return release;
}

function occupied(directory: string, name: string): EspalierError {
  const { host, pid } = ownerOf(name.slice(PREFIX.length))!;
  const path = join(directory, name);
  return new EspalierError(
    "occupied-directory",
    `${directory}: process ${pid} of ${host} is at work there; if it is not, remove ${path}`,
    { directory, path, host, pid },
  );
}
