/** @file What has to be true of a directory before a command writes to it. */
import { realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, relative, sep } from "node:path";
import { EspalierError, isPartial, listDirectory } from "@espalier/base";

/**
 * @param hint What else can be done, if anything.
 * @param isIgnored Which entries do not count; default: all do.
 * @throws EspalierError `occupied-directory` if `directory` exists and is not empty.
 */
export async function expectEmpty(
  directory: string,
  hint?: string,
  isIgnored: (name: string) => boolean = () => false,
): Promise<void> {
  const { length } = (await listDirectory(directory)).filter((name) => !isIgnored(name));
  if (length === 0) return;
  throw new EspalierError(
    "occupied-directory",
    `${directory}: expected an empty or new directory, found ${length} entries${hint === undefined ? "" : `; ${hint}`}`,
    { directory },
  );
}

/**
 * @param what What the directory is expected to hold, for the message.
 * @throws EspalierError `occupied-directory` if `directory` has an entry, whole or partial, that is none of
 *   `names`.
 */
export async function expectOnly(
  directory: string,
  names: readonly string[],
  what: string,
): Promise<void> {
  const foreign = (await listDirectory(directory)).find(
    (entry) => !names.some((name) => entry === name || isPartial(entry, name)),
  );
  if (foreign === undefined) return;
  throw new EspalierError(
    "occupied-directory",
    `${directory}: expected nothing but ${what}, which would be replaced, found ${foreign}`,
    { directory, foreign },
  );
}

/**
 * @param inputs Files and directories that are read to write `directory`.
 * @throws EspalierError `invalid-argument` if one of them is `directory` or lies in it.
 */
export async function expectOutside(directory: string, inputs: readonly string[]): Promise<void> {
  const output = await realpath(directory).catch(() => undefined);
  if (output === undefined) return;
  for (const input of inputs) {
    // Of a link, both where it is and what it points to.
    const parent = await realpath(dirname(input)).catch(() => undefined);
    const places = [
      parent && join(parent, basename(input)),
      await realpath(input).catch(() => undefined),
    ];
    if (!places.some((place) => place !== undefined && isWithin(output, place))) continue;
    throw new EspalierError(
      "invalid-argument",
      `${directory}: expected a directory without ${input}, which is read and would be removed; write to another directory`,
      { directory, input },
    );
  }
}

function isWithin(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}
