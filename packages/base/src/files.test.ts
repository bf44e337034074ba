import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  EspalierError,
  hashFile,
  isPartial,
  listDirectory,
  movePath,
  openFile,
  readBytes,
  readJson,
  removePath,
  writeDirectoryAtomic,
  writeFileAtomic,
  writeJsonAtomic,
} from "./index.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-base-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe("writeFileAtomic", () => {
  test("creates directories, replaces content and leaves nothing else", async () => {
    const path = join(directory, "a", "b", "file.txt");
    await writeFileAtomic(path, "first");
    await writeFileAtomic(path, [new Uint8Array([0x6f]), new Uint8Array([0x6b])]);
    expect(await readFile(path, "utf8")).toBe("ok");
    expect(await readdir(join(directory, "a", "b"))).toEqual(["file.txt"]);
  });

  test("keeps the old content and removes the partial file when a chunk fails", async () => {
    const path = join(directory, "file.bin");
    await writeFile(path, "old");
    async function* failing() {
      yield new Uint8Array(10);
      throw new Error("source failed");
    }
    await expect(writeFileAtomic(path, failing())).rejects.toThrow(/file\.bin.*source failed/);
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(directory)).toEqual(["file.bin"]);
  });

  test("two writers of one file both succeed, and one of them is what stays", async () => {
    const path = join(directory, "file.bin");
    async function* slow(text: string) {
      for (let i = 0; i < 4; i++) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        yield new TextEncoder().encode(text.repeat(1000));
      }
    }
    for (let i = 0; i < 10; i++) {
      await Promise.all(["A", "B"].map((text) => writeFileAtomic(path, slow(text))));
      expect(await readFile(path, "utf8")).toMatch(/^(A{4000}|B{4000})$/);
    }
    expect(await readdir(directory)).toEqual(["file.bin"]);
  });

  test.skipIf(process.platform === "win32")("follows no link to another file", async () => {
    const [path, other] = [join(directory, "file"), join(directory, "other")];
    await writeFile(other, "precious");
    await symlink(other, `${path}.partial`);
    await symlink(other, path);
    await writeFileAtomic(path, "new");
    expect(await readFile(path, "utf8")).toBe("new");
    expect(await readFile(other, "utf8")).toBe("precious");
  });

  test("what it may leave when it is killed can be told from other files", async () => {
    let meanwhile: string[] = [];
    async function* looking() {
      meanwhile = await readdir(directory);
      yield new Uint8Array(1);
    }
    await writeFileAtomic(join(directory, "file.bin"), looking());
    expect(meanwhile.map((entry) => isPartial(entry, "file.bin"))).toEqual([true]);
    expect(meanwhile.map((entry) => isPartial(entry, "file"))).toEqual([false]);
    expect(isPartial("file.bin.partial", "file.bin")).toBe(true);
    for (const entry of ["file.bin", "file.bin.backup.partial", "other.partial"]) {
      expect(isPartial(entry, "file.bin")).toBe(false);
    }
  });

  test("names a full disk", async () => {
    const path = join(directory, "full");
    const source = (async function* () {
      yield new Uint8Array(1);
      throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
    })();
    await expect(writeFileAtomic(path, source)).rejects.toMatchObject({ code: "disk-full" });
  });
});

describe("directories", () => {
  test("appear when they are complete, without what was left of them before", async () => {
    const path = join(directory, "a", "b");
    await mkdir(`${path}.partial`, { recursive: true });
    await writeFile(join(`${path}.partial`, "left"), "");
    const failing = writeDirectoryAtomic(path, async (partial) => {
      await writeFile(join(partial, "half"), "");
      throw new Error("stopped");
    });
    await expect(failing).rejects.toThrow("stopped");
    expect(await listDirectory(path)).toEqual([]);
    await writeDirectoryAtomic(path, (partial) => writeFile(join(partial, "whole"), ""));
    expect(await listDirectory(path)).toEqual(["whole"]);
    await removePath(path);
    await removePath(path);
    expect(await listDirectory(join(directory, "a"))).toEqual([]);
  });

  test("errors name them", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    const below = join(file, "below");
    for (const fail of [
      () => writeDirectoryAtomic(below, async () => {}),
      () => movePath(directory, below),
      () => listDirectory(file),
    ]) {
      const error = await fail().catch((caught: unknown) => caught);
      expect(EspalierError.isInstance(error)).toBe(true);
      expect((error as Error).message).toContain(file);
    }
  });
});

describe("readJson", () => {
  test("reads back what was written", async () => {
    const path = join(directory, "value.json");
    await writeJsonAtomic(path, { a: [1, 2.5] });
    expect(await readJson(path)).toEqual({ a: [1, 2.5] });
  });

  test.each([
    ["missing", undefined, "missing-file"],
    ["malformed", "{", "invalid-file"],
    ["deep", "[".repeat(50) + "[".repeat(20), "invalid-file"],
    ["too large", `"${"x".repeat(100)}"`, "invalid-file"],
  ] as const)("%s file", async (_name, content, code) => {
    const path = join(directory, "value.json");
    if (content !== undefined) await writeFile(path, content);
    const error = await readJson(path, 50).catch((caught: unknown) => caught as EspalierError);
    expect(EspalierError.isInstance(error, code)).toBe(true);
    expect((error as EspalierError).message).toContain(path);
  });

  test("a directory", async () => {
    await mkdir(join(directory, "value.json"));
    await expect(readJson(join(directory, "value.json"))).rejects.toMatchObject({
      code: "invalid-file",
    });
  });
});

test.skipIf(process.platform === "win32")("what is not a regular file is not opened", async () => {
  const path = join(directory, "fifo");
  execFileSync("mkfifo", [path]);
  for (const read of [readJson, readBytes, openFile, () => hashFile(path, "md5")]) {
    await expect(read(path)).rejects.toMatchObject({
      code: "invalid-file",
      message: `${path}: expected a file, got a FIFO`,
    });
  }
  await expect(readBytes("/dev/null")).rejects.toThrow("/dev/null: expected a file, got a device");
});

test("hashFile gives the digest of the content", async () => {
  const path = join(directory, "abc");
  await writeFile(path, "abc");
  expect(await hashFile(path, "md5")).toBe("900150983cd24fb0d6963f7d28e17f72");
});

test("isInstance recognises an error of another copy of the package", () => {
  const foreign = Object.assign(new Error("x"), {
    code: "network",
    [Symbol.for("espalier.error")]: true,
  });
  expect(EspalierError.isInstance(foreign, "network")).toBe(true);
  expect(EspalierError.isInstance(new Error("x"))).toBe(false);
});
