/** @file Where the tables of a data set of texts are. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describeFileError, EspalierError } from "@espalier/base";
import { tableEndings } from "./read-table.ts";

/** The names in `directory`, sorted. @throws EspalierError `missing-file`. */
export async function listNames(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    throw describeFileError(error, directory, "read");
  });
  return names.sort();
}

/**
 * The files of one half, called by one of `names`: one, or all parts of one that was published in parts,
 * such as `train-00000-of-00001.parquet`.
 *
 * @throws EspalierError `missing-file`.
 */
export async function findTables(directory: string, names: readonly string[]): Promise<string[]> {
  const entries = await listNames(directory);
  for (const name of names) {
    for (const ending of tableEndings) {
      if (entries.includes(name + ending)) return [join(directory, name + ending)];
      const parts = entries.flatMap((entry) => {
        const match = entry.startsWith(`${name}-`) && entry.endsWith(ending);
        const [, count] = (match && /^-\d+-of-(\d+)\./.exec(entry.slice(name.length))) || [];
        return count === undefined ? [] : [{ path: join(directory, entry), count: Number(count) }];
      });
      if (parts.length === 0) continue;
      if (parts.every(({ count }) => count === parts.length)) return parts.map(({ path }) => path);
      throw new EspalierError(
        "missing-file",
        `${directory}: expected all parts of ${name}${ending}, ${parts[0].count} by the name of the first, got ${parts.length}`,
        { path: directory },
      );
    }
  }
  throw new EspalierError(
    "missing-file",
    `${directory}: expected ${names.join(" or ")} with one of the endings ${tableEndings.join(", ")}`,
    { path: directory },
  );
}
