/** @file Finds the files of a data set where a user says they are. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describeFileError, EspalierError } from "@espalier/base";

/**
 * The directory that has all the files `names`: `directory` itself, or `folder` inside it as the
 * published archive makes it.
 *
 * @throws EspalierError `missing-file`, listing what is missing, or `invalid-file` if `directory`
 * is a file.
 */
export async function findDirectory(
  directory: string,
  folder: string,
  names: readonly string[],
): Promise<string> {
  const entries = await list(directory);
  const isParent = entries.includes(folder) && !names.some((name) => entries.includes(name));
  const found = isParent ? join(directory, folder) : directory;
  const present = isParent ? await list(found) : entries;
  const missing = names.filter((name) => !present.includes(name));
  if (missing.length > 0) {
    throw new EspalierError(
      "missing-file",
      `${found}: expected ${names.join(", ")}, missing ${missing.join(", ")}`,
      { path: found, names, missing },
    );
  }
  return found;
}

async function list(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch((error: unknown) => {
    throw (error as NodeJS.ErrnoException).code === "ENOTDIR"
      ? new EspalierError("invalid-file", `${directory}: expected a directory, got a file`, {
          path: directory,
        })
      : describeFileError(error, directory, "read");
  });
}
