/** Downloads from a server on this machine that answers as the Hub does. */
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError } from "@espalier/base";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { DatasetEvent } from "./dataset-event.ts";
import { fetchFromHub, type HubRequest } from "./hub.ts";
import { openDataset } from "./open-dataset.ts";

const commit = "0123456789abcdef0123456789abcdef01234567";
const weights = new Uint8Array(300_000).map((_, i) => (i * 7919) % 251);
const config = new TextEncoder().encode('{"model_type": "bert"}');

type Answer = (request: IncomingMessage, response: ServerResponse) => boolean;

let root: string;
let server: Server;
let files: Map<string, Uint8Array>;
/** Handles a request before the repository does. */
let answer: Answer;
let requests: string[];
let authorizations: Set<string | undefined>;

/** Files above this many bytes are large, as those in Git LFS. */
const LARGE = 1000;

function entryOf(path: string, bytes: Uint8Array) {
  const git = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const large = { oid: sha256, size: bytes.length, pointerSize: 130 };
  return {
    type: "file",
    path,
    oid: git,
    size: bytes.length,
    ...(bytes.length > LARGE ? { lfs: large } : {}),
  };
}

function respond(request: IncomingMessage, response: ServerResponse): void {
  const url = decodeURIComponent(request.url!);
  requests.push(`${url.replace(/\?.*/, "")} ${request.headers.range ?? ""}`.trim());
  authorizations.add(request.headers.authorization);
  if (answer(request, response)) return;
  const json = (status: number, value: unknown): void => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  const [, type, name, what, revision] =
    /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/([^/?]+)/.exec(url) ?? [];
  if (type !== undefined) {
    if (name === "owner/gone") json(401, { error: "Invalid username or password." });
    else if (!["main", "v1", commit].includes(revision)) {
      json(404, { error: `Invalid rev id: ${revision}` });
    } else if (what === "revision") json(200, { _id: "1", id: name, sha: commit });
    else {
      json(
        200,
        [...files].map(([path, bytes]) => entryOf(path, bytes)),
      );
    }
    return;
  }
  const [, path] = /\/resolve\/[^/]+\/([^?]+)/.exec(url) ?? [];
  const bytes = files.get(path);
  if (bytes === undefined) {
    json(404, { error: "Entry not found" });
    return;
  }
  const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
  const start = Number(from ?? 0);
  const part = bytes.subarray(start, to === undefined ? undefined : Number(to) + 1);
  response.writeHead(from === undefined ? 200 : 206, {
    etag: '"x"',
    "content-length": part.length,
    "content-range": `bytes ${start}-${start + part.length - 1}/${bytes.length}`,
  });
  response.end(part);
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "espalier-hub-"));
  files = new Map([
    ["config.json", config],
    ["model.safetensors", weights],
    ["unwanted.bin", weights],
  ]);
  answer = () => false;
  requests = [];
  authorizations = new Set();
  server = createServer(respond);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("HF_ENDPOINT", `http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  vi.stubEnv("HF_HOME", join(root, "home"));
  for (const name of ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"]) {
    vi.stubEnv(name, "");
  }
  vi.stubEnv("HUGGING_FACE_HUB_TOKEN", "");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(root, { recursive: true, force: true });
});

const request: HubRequest = {
  type: "model",
  name: "owner/name",
  choose: (found) => {
    const wanted = ["config.json", "model.safetensors"];
    if (wanted.every((path) => found.includes(path))) return wanted;
    throw new EspalierError("missing-file", "not all there");
  },
};

async function failure(promise: Promise<unknown>): Promise<EspalierError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!EspalierError.isInstance(error)) throw error ?? new Error("expected a failure");
  return error;
}

const downloads = () => requests.filter((each) => each.includes("/resolve/"));

test("only what is chosen is fetched, once, with progress, where Python looks for it", async () => {
  const events: DatasetEvent[] = [];
  const snapshot = await fetchFromHub(request, { onEvent: (event) => events.push(event) });
  expect(snapshot.commit).toBe(commit);
  expect(snapshot.directory).toBe(join(root, "home/hub/models--owner--name/snapshots", commit));
  expect((await readdir(snapshot.directory)).sort()).toEqual(["config.json", "model.safetensors"]);
  expect(new Uint8Array(await readFile(join(snapshot.directory, "model.safetensors")))).toEqual(
    weights,
  );
  const refs = join(root, "home/hub/models--owner--name/refs/main");
  expect(await readFile(refs, "utf8")).toBe(commit);
  const ends = events.filter(({ type }) => type === "download-end");
  expect(ends).toMatchObject([
    { subject: "owner/name/config.json", bytes: config.length },
    { subject: "owner/name/model.safetensors", bytes: weights.length, totalBytes: weights.length },
  ]);
  requests = [];
  expect(await fetchFromHub(request)).toEqual(snapshot);
  expect(downloads()).toEqual([]);
  expect([...authorizations]).toEqual([undefined]);
});

test("a download that was interrupted is continued", async () => {
  const cut = 100_000;
  answer = ({ url, headers }, response) => {
    if (!url!.includes("/resolve/") || !url!.includes("model")) return false;
    if (headers.range === "bytes=0-0") return false;
    response.writeHead(200, { etag: '"x"', "content-length": weights.length });
    // What was sent arrives before the connection ends.
    response.write(weights.subarray(0, cut), () => setTimeout(() => response.destroy(), 100));
    answer = (next, reply) => {
      if (!next.url!.includes("/resolve/")) return false;
      reply.destroy();
      return true;
    };
    return true;
  };
  const error = await failure(fetchFromHub(request));
  expect(error.code).toBe("network");
  answer = () => false;
  requests = [];
  const { directory } = await fetchFromHub(request);
  expect(new Uint8Array(await readFile(join(directory, "model.safetensors")))).toEqual(weights);
  const ranges = downloads().map((each) => each.split("bytes=")[1]);
  expect(ranges).toEqual(["0-0", `${cut}-${weights.length - 1}`]);
});

test("a file with another hash is refused and fetched anew the next time", async () => {
  const blobs = join(root, "home/hub/models--owner--name/blobs");
  const broken = weights.slice();
  broken[5] ^= 1;
  answer = ({ url, headers }, response) => {
    if (!url!.includes("/resolve/") || !url!.includes("model")) return false;
    if (headers.range === "bytes=0-0") return false;
    response.writeHead(200).end(broken);
    return true;
  };
  const error = await failure(fetchFromHub(request));
  expect(error.code).toBe("network");
  expect(error.message).toMatch(/^owner\/name\/model.safetensors: expected 300000 bytes with the/);
  expect((await readdir(blobs)).length).toBe(1);
  answer = () => false;
  await fetchFromHub(request);
});

test("the cache does without a connection, and offline without asking", async () => {
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  const absent = await failure(fetchFromHub(request));
  expect(absent.code).toBe("missing-file");
  expect(absent.message).toMatch(/not in the cache .* and HF_HUB_OFFLINE is set$/);
  expect(requests).toEqual([]);

  vi.stubEnv("HF_HUB_OFFLINE", "");
  const fetched = await fetchFromHub(request);
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  requests = [];
  expect(await fetchFromHub(request)).toEqual(fetched);
  expect(await fetchFromHub({ ...request, revision: commit })).toEqual(fetched);
  expect(requests).toEqual([]);

  vi.stubEnv("HF_HUB_OFFLINE", "");
  answer = (_, response) => {
    response.destroy();
    return true;
  };
  const events: DatasetEvent[] = [];
  expect(await fetchFromHub(request, { onEvent: (event) => events.push(event) })).toEqual(fetched);
  expect(events).toMatchObject([{ type: "cache-use", error: { code: "network" } }]);
  const unknown = await failure(fetchFromHub({ ...request, name: "owner/other" }));
  expect(unknown.code).toBe("network");
});

describe("says what is wrong:", () => {
  test.each([
    [
      "no such repository",
      { name: "owner/gone" },
      "missing-file",
      /gone: no such repository, or a private one \(set HF_TOKEN/,
    ],
    ["no such revision", { revision: "v9" }, "missing-file", /owner\/name@v9: no such revision$/],
    [
      "a revision that is a path",
      { revision: "../../x" },
      "invalid-argument",
      /revision: expected a name/,
    ],
  ] as const)("%s", async (_, changes, code, message) => {
    const error = await failure(fetchFromHub({ ...request, ...changes }));
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  test("a file that may not be read", async () => {
    answer = ({ url }, response) => {
      if (!url!.includes("/resolve/")) return false;
      response.writeHead(403, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: "Access to model owner/name is restricted." }));
      return true;
    };
    const error = await failure(fetchFromHub(request));
    expect(error.message).toMatch(/name: access is restricted; ask for it on that page \(set HF_/);
    expect(error.code).toBe("invalid-argument");
  });

  test("a token that is none", async () => {
    vi.stubEnv("HF_TOKEN", "secret");
    const error = await failure(fetchFromHub(request));
    expect(error.message).toMatch(/^HF_TOKEN: .*hf_/);
    expect(error.message).not.toContain("secret");
  });

  test("a server that lists files outside of the repository", async () => {
    files.set("../../config.json", config);
    const choose = () => ["../../config.json"];
    const error = await failure(fetchFromHub({ ...request, choose }));
    expect(error.code).toBe("invalid-argument");
    expect(downloads()).toEqual([]);
  });
});

test("a token is sent along", async () => {
  await writeFile(join(root, "token"), "hf_abc\n");
  vi.stubEnv("HF_TOKEN_PATH", join(root, "token"));
  await fetchFromHub({ ...request, revision: "v1" });
  expect([...authorizations]).toEqual(["Bearer hf_abc"]);
});

test("a task of GLUE comes from the Hub where no directory is given", async () => {
  const table = (count: number) =>
    new Uint8Array(
      parquetWriteBuffer({
        columnData: [
          { name: "sentence", data: Array(count).fill("a film"), type: "STRING" },
          { name: "label", data: Array(count).fill(1), type: "INT32" },
        ],
      }),
    );
  files = new Map([
    ["README.md", config],
    ["sst2/train-00000-of-00001.parquet", table(5)],
    ["sst2/validation-00000-of-00001.parquet", table(3)],
    ["sst2/test-00000-of-00001.parquet", table(3)],
    ["rte/train-00000-of-00001.parquet", table(1)],
  ]);
  const { counts } = await openDataset("glue/sst2");
  expect(counts).toEqual({ train: 5, test: 3 });
  expect(new Set(downloads().map((each) => each.split(/[/ ]/).at(-2)))).not.toContain("test");
  expect(requests.some((each) => each.includes("/datasets/nyu-mll/glue/resolve"))).toBe(true);
  await expect(openDataset("glue/rte")).rejects.toThrow(/expected rte\/train-\*.parquet and/);
});
