/** @file Takes named files out of a tar.gz from outside. */
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { describeFileError, EspalierError, throwIfAborted } from "@espalier/base";

/**
 * Writes the wanted files of `archive`, which lie in one folder there, into `directory`. Nothing
 * else in the archive is written, whatever it is called; wanted files that it lacks are not noticed
 * here.
 *
 * @param maximumBytes Wanted file names and the size up to which each is accepted.
 * @throws EspalierError `invalid-file` for a damaged archive or too large a file, `disk-full`.
 */
export async function unpackArchive(
  archive: string,
  directory: string,
  maximumBytes: ReadonlyMap<string, number>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { extract } = await import("tar");
  const refused: string[] = [];
  const unpacking = extract({
    cwd: directory,
    strip: 1,
    strict: true,
    noMtime: true,
    preserveOwner: false,
    filter(path, entry) {
      const [, name, ...deeper] = path.split("/");
      const maximum = maximumBytes.get(name ?? "");
      if (maximum === undefined || deeper.length > 0) return false;
      if (!("type" in entry) || entry.type !== "File") return false;
      if (entry.size <= maximum) return true;
      refused.push(`${path} of at most ${maximum} bytes, got ${entry.size}`);
      return false;
    },
  });
  // After its first error tar may meet others, when nobody waits any more.
  unpacking.on("error", () => {});
  const input = createReadStream(archive);
  try {
    input.on("error", (error) => unpacking.emit("error", error));
    input.pipe(unpacking);
    await once(unpacking, "close", { signal });
  } catch (error) {
    throwIfAborted(signal);
    const described = describeFileError(error, directory, "write");
    if (described.code === "disk-full") throw described;
    const reason = (error as Error).message;
    throw new EspalierError(
      "invalid-file",
      `${archive}: expected a complete tar.gz: ${reason}`,
      { path: archive },
      error,
    );
  } finally {
    input.destroy();
  }
  if (refused.length > 0) {
    throw new EspalierError("invalid-file", `${archive}: expected ${refused.join("; ")}`, {
      path: archive,
    });
  }
}
