/** @file Run directories: every stage leaves a file, and a stage whose file is there is not run again. */

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  describeFileError,
  EspalierError,
  hashFile,
  isPartial,
  listDirectory,
  PARTIAL_SUFFIX,
  readJson,
  removePath,
  show,
  writeDirectoryAtomic,
  writeJsonAtomic,
} from "@espalier/base";
import { expectEmpty, expectOnly, expectOutside } from "./output-directory.ts";
import { isLock, lockRun } from "./run-lock.ts";
import { readStageDigests, stagesMadeOf } from "./stage-digests.ts";

/** What was asked for; the first file of a run. */
export const MANIFEST = "run.json";
/** The model as it is after the last stage that changes it. */
export const FINAL_MODEL = "model";
/** The model that a run has trained before it prunes it. */
export const DENSE_MODEL = "dense";

/** What the stages were made of. */
const DIGESTS = "digests.json";

// What earlier versions of the program have not written in manifests.
const ADDED: readonly string[] = ["dataDigest", "inputDigest"];

const commands: readonly unknown[] = ["prune", "sensitivity", "train"];

/** All that the directory of a run has, the reports of it included. */
const runNames = [
  MANIFEST,
  DIGESTS,
  ...[DENSE_MODEL, "dense-training.json", "latency", "rounds", "sensitivity.json", "plan.json"],
  ...["budgets.json", "pruned", "training.safetensors", "training.json", FINAL_MODEL],
  ...["evaluation.json", "export", "sizes.json", "latency.json"],
  ...["report.html", "README.md", "summary.json"],
];

export type Manifest = Readonly<Record<string, unknown>>;

export interface OpenRunOptions {
  /** Continue a run that was begun with the same manifest. */
  readonly resume: boolean;
  /** Remove what the directory holds, if it is a run. */
  readonly overwrite: boolean;
}

/** A run in progress. */
export class RunDirectory {
  readonly path: string;
  private readonly release: () => Promise<void>;

  private constructor(path: string, release: () => Promise<void>) {
    this.path = path;
    this.release = release;
  }

  /**
   * Begins or resumes a run, which is this process's alone until it is closed.
   *
   * @param inputs Files and directories that the run reads.
   * @throws EspalierError `occupied-directory` if there is something else, or another process is at
   *   work; `invalid-argument` naming the first setting in which a run to be resumed differs, if it is
   *   both to be resumed and to be overwritten, and if an input would be overwritten.
   */
  static async open(
    path: string,
    manifest: Manifest,
    { resume, overwrite }: OpenRunOptions,
    inputs: readonly string[] = [],
  ): Promise<RunDirectory> {
    const manifestPath = join(path, MANIFEST);
    if (resume && overwrite) {
      throw new EspalierError(
        "invalid-argument",
        `${path}: expected one of resume and overwrite, got both`,
        { path },
      );
    }
    const begun = existsSync(manifestPath);
    if (begun && overwrite) await expectRun(path, inputs);
    else if (begun && resume) {
      expectSame(manifestPath, (await readJson(manifestPath)) as Manifest, manifest);
    } else {
      const hint = overwrite
        ? `it is no run, without a ${MANIFEST}`
        : "use --resume to continue a run or --overwrite to replace it";
      // A run that was stopped before its manifest was complete has left nothing else.
      const isLeft = (name: string) => (resume || overwrite) && isPartial(name, MANIFEST);
      await expectEmpty(path, hint, (name) => isLock(name) || isLeft(name));
    }
    const release = await lockRun(path);
    try {
      if (begun && overwrite) await removeRun(path);
      else await removePartial(path);
      if (!(begun && resume)) await writeJsonAtomic(manifestPath, manifest);
    } catch (error) {
      await release();
      throw error;
    }
    return new RunDirectory(path, release);
  }

  /** Lets other processes work in the directory. */
  async close(): Promise<void> {
    await this.release();
  }

  file(name: string): string {
    return join(this.path, name);
  }

  has(name: string): boolean {
    return existsSync(this.file(name));
  }

  /**
   * The content of a JSON file of the run, which `compute` provides if it is not there yet.
   *
   * @param from Files of the run that it is made of.
   * @throws EspalierError `invalid-file` if it was made of files that have been changed since.
   */
  async json<T>(name: string, compute: () => Promise<T>, from: readonly string[] = []): Promise<T> {
    const path = this.file(name);
    await this.make(name, from, async (ready) => {
      const value = await compute();
      await ready();
      await writeJsonAtomic(path, value);
    });
    // Read back even when just written, so that resumed and uninterrupted runs go on alike.
    return (await readJson(path)) as T;
  }

  /**
   * Makes sure that a directory of the run is there; `write` fills one under a passing name.
   *
   * @param from As of `json`, and so are the errors.
   */
  async directory(
    name: string,
    write: (path: string) => Promise<void>,
    from: readonly string[] = [],
  ): Promise<string> {
    const path = this.file(name);
    await this.make(name, from, (ready) =>
      writeDirectoryAtomic(path, async (partial) => {
        await write(partial);
        await ready();
      }),
    );
    return path;
  }

  /**
   * For files that are written now and again: makes sure that `name`, if it is there, was made of `from`.
   *
   * @throws EspalierError as `json`.
   */
  async begin(name: string, from: readonly string[]): Promise<void> {
    await this.make(name, from, (ready) => ready());
  }

  /** Removes a file that later stages do not need. */
  async discard(name: string): Promise<void> {
    await removePath(this.file(name));
    await this.record(name, {});
  }

  /** @param write Has to call `ready` before the file or directory gets its name. */
  private async make(
    name: string,
    from: readonly string[],
    write: (ready: () => Promise<void>) => Promise<void>,
  ): Promise<void> {
    if (this.has(name)) return this.expectUnchanged(name);
    const digests: Record<string, string> = {};
    for (const file of from) digests[file] = await hashFile(this.file(file), "sha256");
    await write(() => this.record(name, digests));
  }

  /** Writes down what `name` is made of; forgets it if it is made of nothing. */
  private async record(name: string, digests: Readonly<Record<string, string>>): Promise<void> {
    const { [name]: before = {}, ...others } = await readStageDigests(this.file(DIGESTS));
    if (isDeepStrictEqual(before, digests)) return;
    const isMade = Object.keys(digests).length > 0;
    const entries = Object.entries(isMade ? { ...others, [name]: digests } : others);
    // In an order that does not depend on when the run was stopped.
    const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1));
    await writeJsonAtomic(this.file(DIGESTS), Object.fromEntries(sorted));
  }

  private async expectUnchanged(name: string): Promise<void> {
    const digests = await readStageDigests(this.file(DIGESTS));
    for (const [file, digest] of Object.entries(digests[name] ?? {})) {
      const path = this.file(file);
      if (this.has(file) && (await hashFile(path, "sha256")) === digest) continue;
      const stale = stagesMadeOf(digests, file).filter((stage) => this.has(stage));
      throw new EspalierError(
        "invalid-file",
        `${path}: expected it as it was when ${name} was made of it, found it changed; put it back, or remove ${stale.join(", ")} from ${this.path} to have them made anew`,
        { path, stale },
      );
    }
  }
}

/**
 * @param subject Whose manifest `before` is.
 * @throws EspalierError `invalid-argument` naming the first key in which the manifests differ.
 */
export function expectSame(
  path: string,
  before: Manifest,
  now: Manifest,
  subject = "the run to be resumed",
): void {
  if (typeof before !== "object" || before === null) {
    throw new EspalierError("invalid-file", `${path}: expected an object, got ${show(before)}`, {
      path,
    });
  }
  // What JSON cannot hold, such as undefined, is not part of a manifest.
  const wanted = JSON.parse(JSON.stringify(now)) as Manifest;
  const known = Object.entries(wanted).filter(
    ([key]) => !ADDED.includes(key) || Object.hasOwn(before, key),
  );
  const difference = firstDifference(before, Object.fromEntries(known));
  if (difference === undefined) return;
  const { key, ...values } = difference;
  throw new EspalierError(
    "invalid-argument",
    `${path}: ${subject} had ${key} ${show(values.before)}, now it is ${show(values.now)}`,
    { path, ...difference },
  );
}

/** The first key, such as `settings.plan.budget.keep`, that two trees of settings differ in. */
function firstDifference(
  before: Manifest,
  now: Manifest,
): { key: string; before: unknown; now: unknown } | undefined {
  const isTree = (value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
    const [was, is] = [before[key], now[key]];
    if (isDeepStrictEqual(was, is)) continue;
    const within =
      isTree(was) && isTree(is) ? firstDifference(was as Manifest, is as Manifest) : undefined;
    if (within === undefined) return { key, before: was, now: is };
    return { ...within, key: `${key}.${within.key}` };
  }
  return undefined;
}

/** @throws EspalierError `occupied-directory` or `invalid-argument` unless a run is all that is there. */
async function expectRun(path: string, inputs: readonly string[]): Promise<void> {
  const manifestPath = join(path, MANIFEST);
  const manifest = (await readJson(manifestPath).catch((error: unknown) => {
    if (!EspalierError.isInstance(error, "invalid-file")) throw error;
  })) as Manifest | null | undefined;
  if (!commands.includes(manifest?.command)) {
    throw new EspalierError(
      "occupied-directory",
      `${manifestPath}: expected the file of a run, which would be replaced, found another's`,
      { path },
    );
  }
  await expectOutside(path, inputs);
  const locks = (await listDirectory(path)).filter(isLock);
  await expectOnly(path, [...runNames, ...locks], "a run");
}

/** The directory stays, and so does the lock. */
async function removeRun(path: string): Promise<void> {
  // While it has its manifest, a run that is half removed can be overwritten again.
  const entries = (await listDirectory(path)).filter((name) => name !== MANIFEST && !isLock(name));
  for (const name of [...entries, MANIFEST]) await removePath(join(path, name));
}

/** Removes what a stopped program has left of unfinished files. */
async function removePartial(path: string): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch((error) => {
    throw describeFileError(error, path, "read");
  });
  for (const entry of entries) {
    if (entry.name.endsWith(PARTIAL_SUFFIX)) await removePath(join(entry.parentPath, entry.name));
  }
}
