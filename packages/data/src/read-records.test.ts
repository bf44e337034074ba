import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError } from "@espalier/base";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readRecords } from "./read-records.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-records-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test("any files are either read as they are or refused by name", async () => {
  // Small records, so that chance finds whole numbers of them.
  const shape = [1, 1, 2] as const;
  const content = fc.uint8Array({ maxLength: 12, max: 6 });
  await fc.assert(
    fc.asyncProperty(fc.array(content, { minLength: 1, maxLength: 3 }), async (contents) => {
      const paths = contents.map((_, index) => join(directory, `${index}.bin`));
      for (const [index, path] of paths.entries()) await writeFile(path, contents[index]!);
      const bytes = contents.flatMap((each) => [...each]);
      const labels = bytes.filter((_, index) => index % 3 === 0);
      const valid =
        contents.every(({ length }) => length > 0 && length % 3 === 0) &&
        labels.every((label) => label < 5);
      const split = await readRecords(paths, shape, 5, undefined).catch((error: unknown) => error);
      if (valid) {
        const pixels = bytes.filter((_, index) => index % 3 !== 0);
        expect(split).toMatchObject({
          count: labels.length,
          labels: Uint8Array.from(labels),
          images: Uint8Array.from(pixels),
        });
      } else {
        expect(EspalierError.isInstance(split, "invalid-file")).toBe(true);
        expect((split as EspalierError).message).toContain(directory);
      }
    }),
  );
});

test("reads files larger than a chunk", async () => {
  const path = join(directory, "large.bin");
  const count = 3_000;
  await writeFile(
    path,
    Uint8Array.from({ length: count * 3_073 }, (_, i) => Math.floor(i / 3_073) % 10),
  );
  const split = await readRecords([path], [3, 32, 32], 10, undefined);
  expect(split.count).toBe(count);
  expect(split.labels.every((label, n) => label === n % 10)).toBe(true);
  expect(split.images.every((pixel, i) => pixel === Math.floor(i / 3_072) % 10)).toBe(true);
});

test("names the record with a label out of range", async () => {
  const path = join(directory, "labels.bin");
  await writeFile(path, [Buffer.alloc(3_073), Buffer.alloc(3_073, 10)]);
  await expect(readRecords([path], [3, 32, 32], 10, undefined)).rejects.toThrow(
    `${path}: record 1: expected a label below 10, got 10`,
  );
});

test("refuses more than fits, without taking the memory", async () => {
  const path = join(directory, "sparse.bin");
  await writeFile(path, "");
  await truncate(path, 3_073 * 700_000);
  await expect(readRecords([path], [3, 32, 32], 10, undefined)).rejects.toMatchObject({
    code: "invalid-file",
  });
});

test("refuses a directory and a missing file", async () => {
  await mkdir(join(directory, "a.bin"));
  await expect(readRecords([join(directory, "a.bin")], [1, 1, 2], 5, undefined)).rejects.toThrow(
    /a\.bin: expected a file/,
  );
  await expect(
    readRecords([join(directory, "b.bin")], [1, 1, 2], 5, undefined),
  ).rejects.toMatchObject({ code: "missing-file" });
});

test("stops when aborted", async () => {
  const path = join(directory, "a.bin");
  await writeFile(path, Buffer.alloc(3));
  await expect(readRecords([path], [1, 1, 2], 5, AbortSignal.abort())).rejects.toMatchObject({
    code: "aborted",
  });
});
