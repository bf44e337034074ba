/** @file Files from the Hugging Face Hub, in the cache that Python's huggingface_hub shares. */
import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import {
  copyFile,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { describeFileError, EspalierError, throwIfAborted, writeFileAtomic } from "@espalier/base";
import type { ListFileEntry } from "@huggingface/hub";
import { startProgress } from "./dataset-event.ts";
import type { OpenOptions } from "./open-options.ts";
import { describeNetworkError } from "./save-download.ts";

export interface HubRequest {
  readonly type: "model" | "dataset";
  /** OWNER/NAME. */
  readonly name: string;
  /** A branch, tag or commit; default "main". */
  readonly revision?: string | undefined;
  /**
   * Which of the repository's files are needed.
   *
   * @throws EspalierError if it lacks some.
   */
  choose(files: readonly string[]): readonly string[];
}

export interface HubSnapshot {
  /** The files are in it under their paths in the repository. */
  readonly directory: string;
  /** The hash of the commit that the files are from. */
  readonly commit: string;
}

type HubOptions = Pick<OpenOptions, "signal" | "onEvent">;

/** What the environment says, as for Python's huggingface_hub. */
interface Settings {
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly offline: boolean;
  readonly cache: string;
}

const COMMIT = /^[0-9a-f]{40}$/;
// SHA-256 of large files, SHA-1 of git for others.
const DIGEST = /^([0-9a-f]{40}|[0-9a-f]{64})$/;
const MOST_FILES = 100_000;

async function readSettings(): Promise<Settings> {
  const { env } = process;
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  const read = (path: string) => readFile(path, "utf8").catch(() => "");
  const token =
    env.HF_TOKEN ||
    env.HUGGING_FACE_HUB_TOKEN ||
    (await read(env.HF_TOKEN_PATH || join(home, "token"))).trim();
  return {
    endpoint: (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, ""),
    token: token || undefined,
    offline: /^(1|true|yes|on)$/i.test(env.HF_HUB_OFFLINE ?? ""),
    cache: env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"),
  };
}

/**
 * The files of a repository that `request` chooses, fetched where the cache does not have them. What an
 * interrupted download has left is continued, and every file is compared with its hash. Without a
 * connection, or with HF_HUB_OFFLINE, the cache alone is asked. HF_ENDPOINT, HF_TOKEN, HF_HOME and
 * HF_HUB_CACHE mean what they do for Python's huggingface_hub.
 *
 * @throws EspalierError `missing-file` if there is no such repository, revision or copy in the cache;
 *   `invalid-argument` if it asks for permission; `network`, `disk-full`, `aborted`.
 */
export async function fetchFromHub(
  request: HubRequest,
  options: HubOptions = {},
): Promise<HubSnapshot> {
  const { type, name, revision = "main" } = request;
  expectPath(revision, `${name}: revision`);
  const settings = await readSettings();
  const storage = join(settings.cache, `${type}s--${name.replaceAll("/", "--")}`);
  if (settings.offline) {
    const cached = await findCached(storage, request);
    if (cached !== undefined) return cached;
    throw new EspalierError(
      "missing-file",
      `${urlOf(request, settings)}: not in the cache ${settings.cache}, and HF_HUB_OFFLINE is set`,
      { name, revision },
    );
  }
  try {
    return await fetchOnline(request, settings, storage, options);
  } catch (error) {
    throwIfAborted(options.signal);
    const described = await describeHubError(error, request, settings);
    if (described.code !== "network") throw described;
    const cached = await findCached(storage, request);
    if (cached === undefined) throw described;
    options.onEvent?.({ type: "cache-use", subject: cached.directory, error: described });
    return cached;
  }
}

async function fetchOnline(
  request: HubRequest,
  settings: Settings,
  storage: string,
  options: HubOptions,
): Promise<HubSnapshot> {
  const { type, name, revision = "main" } = request;
  // Loaded when it is needed, since it takes longer than the rest of the command together.
  const hub = await import("@huggingface/hub");
  const access = {
    hubUrl: settings.endpoint,
    accessToken: settings.token,
    fetch: (url: Parameters<typeof fetch>[0], init?: RequestInit) =>
      fetch(url, { ...init, ...(options.signal ? { signal: options.signal } : {}) }),
  };
  const asked = { ...access, name, revision, additionalFields: ["sha" as const] };
  const { sha: commit } = await (type === "model" ? hub.modelInfo(asked) : hub.datasetInfo(asked));
  if (!COMMIT.test(commit)) throw new Error(`expected the hash of a commit, got ${commit}`);
  const repo = { type, name };
  const entries = new Map<string, ListFileEntry>();
  for await (const entry of hub.listFiles({ ...access, repo, revision: commit, recursive: true })) {
    if (entry.type === "file") entries.set(entry.path, entry);
    if (entries.size > MOST_FILES) throw new Error(`more than ${MOST_FILES} files`);
  }
  const directory = join(storage, "snapshots", commit);
  for (const path of request.choose([...entries.keys()])) {
    const entry = entries.get(expectPath(path, `${name}: file`))!;
    const pointer = join(directory, path);
    if (existsSync(pointer)) continue;
    const digest = entry.lfs?.oid ?? entry.oid ?? "";
    if (!DIGEST.test(digest)) throw new Error(`${path}: expected a hash, got "${digest}"`);
    const blob = join(storage, "blobs", digest);
    if (!existsSync(blob)) {
      const size = entry.lfs?.size ?? entry.size;
      const read = async () => {
        const remote = await hub.downloadFile({ ...access, repo, path, revision: commit });
        if (remote === null) throw new Error(`${path}: listed, but not there`);
        return remote;
      };
      await download(blob, { subject: `${name}/${path}`, digest, size, read }, options);
    }
    await point(pointer, blob);
  }
  if (revision !== commit) await writeFileAtomic(join(storage, "refs", revision), commit);
  return { directory, commit };
}

interface Remote {
  /** What messages call it. */
  readonly subject: string;
  readonly digest: string;
  readonly size: number;
  read(): Promise<Blob>;
}

/** Makes the file `path`, from where an earlier attempt has ended. */
async function download(path: string, remote: Remote, { signal, onEvent }: HubOptions) {
  const { subject, digest, size } = remote;
  // As Python's huggingface_hub calls it.
  const partial = `${path}.incomplete`;
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
    throw describeFileError(error, path, "write");
  });
  const progress = startProgress("download", subject, size, onEvent);
  const sizeSoFar = () =>
    stat(partial).then(
      ({ size: bytes }) => bytes,
      () => 0,
    );
  if ((await sizeSoFar()) > size) await rm(partial);
  let done = await sizeSoFar();
  progress.advance(done);
  while (done < size) {
    const before = done;
    const blob = await remote.read();
    const file = await open(partial, "a").catch((error: unknown) => {
      throw describeFileError(error, partial, "write");
    });
    try {
      for await (const chunk of blob.slice(done, size).stream()) {
        throwIfAborted(signal);
        await file.write(chunk).catch((error: unknown) => {
          throw describeFileError(error, partial, "write");
        });
        done += chunk.length;
        progress.advance(chunk.length);
      }
    } catch (error) {
      throwIfAborted(signal);
      // A connection that was lost is made again as long as each brings something.
      if (EspalierError.isInstance(error) || done === before) throw error;
    } finally {
      await file.close();
    }
    if (done === before) throw new Error(`${subject}: expected ${size} bytes, got ${done}`);
  }
  const actual = await digestOf(partial, digest.length === 64, size);
  if (done !== size || actual !== digest) {
    await rm(partial, { force: true });
    throw new EspalierError(
      "network",
      `${subject}: expected ${size} bytes with the hash ${digest}, got ${done} with ${actual}`,
      { subject, expected: digest, actual },
    );
  }
  await rename(partial, path);
  progress.end();
}

/** The SHA-256 of a file, or git's name for it. */
async function digestOf(path: string, large: boolean, size: number): Promise<string> {
  const hash = createHash(large ? "sha256" : "sha1");
  if (!large) hash.update(`blob ${size}\0`);
  if (size > 0) for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

/** Makes `pointer` another name of `blob`. */
async function point(pointer: string, blob: string): Promise<void> {
  try {
    await mkdir(dirname(pointer), { recursive: true });
    await symlink(relative(dirname(pointer), blob), pointer).catch((error) => {
      // Another process was faster.
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
      // Windows permits links to some users alone.
      return copyFile(blob, pointer);
    });
  } catch (error) {
    throw describeFileError(error, pointer, "write");
  }
}

/** What the cache has of a revision; undefined if that is not all that is asked for. */
async function findCached(
  storage: string,
  { choose, revision = "main" }: HubRequest,
): Promise<HubSnapshot | undefined> {
  const ref = await readFile(join(storage, "refs", revision), "utf8").catch(() => revision);
  const commit = ref.trim();
  if (!COMMIT.test(commit)) return undefined;
  const directory = join(storage, "snapshots", commit);
  const entries = await readdir(directory, { recursive: true }).catch(() => []);
  try {
    choose(entries.map((path) => path.split(sep).join("/")));
  } catch {
    return undefined;
  }
  return { directory, commit };
}

/** @throws EspalierError `invalid-argument` for a path that leads out of where it is used. */
function expectPath(path: string, what: string): string {
  const parts = path.split("/");
  if (parts.every((part) => /^[\w.+=@ -]+$/.test(part) && !/^\.+$/.test(part))) return path;
  throw new EspalierError("invalid-argument", `${what}: expected a name, got ${path}`, { path });
}

function urlOf({ type, name, revision }: HubRequest, { endpoint }: Settings): string {
  const at = revision === undefined ? "" : `@${revision}`;
  return `${endpoint}/${type === "dataset" ? "datasets/" : ""}${name}${at}`;
}

async function describeHubError(
  error: unknown,
  request: HubRequest,
  settings: Settings,
): Promise<EspalierError> {
  if (EspalierError.isInstance(error)) return error;
  const url = urlOf(request, settings);
  const data = { name: request.name, revision: request.revision };
  const { HubApiError } = await import("@huggingface/hub");
  if (settings.token !== undefined && error instanceof TypeError && /hf_/.test(error.message)) {
    return new EspalierError("invalid-argument", `HF_TOKEN: ${error.message}`, {}, error);
  }
  if (!(error instanceof HubApiError)) return describeNetworkError(error, url);
  const { statusCode: status } = error;
  const reason = error.message.split("\n", 1)[0].replace(/\. URL: .*$/, "");
  const hint = settings.token === undefined ? " (set HF_TOKEN to be known)" : "";
  if (status === 403 || /gated|restricted/i.test(reason)) {
    const message = `${url}: access is restricted; ask for it on that page${hint}`;
    return new EspalierError("invalid-argument", message, { ...data, status }, error);
  }
  if (status === 404 && /invalid rev/i.test(reason)) {
    return new EspalierError(
      "missing-file",
      `${url}: no such revision`,
      { ...data, status },
      error,
    );
  }
  if (status === 401 || status === 404) {
    const message = `${url}: no such repository, or a private one${hint}`;
    return new EspalierError("missing-file", message, { ...data, status }, error);
  }
  return new EspalierError(
    "network",
    `${url}: HTTP ${status}: ${reason}`,
    { ...data, status },
    error,
  );
}
