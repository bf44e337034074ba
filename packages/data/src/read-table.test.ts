import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

// Sources have no built script that another process could run.
const built = new URL("../dist/read-table.js", import.meta.url).href;
const { readTable } = (await import(built)) as typeof import("./read-table.ts");

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-table-"));
});
afterEach(() => rm(directory, { recursive: true }));

/** Writes a file, and gives its path. */
async function write(content: string | Uint8Array): Promise<string> {
  const path = join(directory, "rows.parquet");
  await writeFile(path, content);
  return path;
}

describe("Parquet, read by another process,", () => {
  test("has the rows that were written", async () => {
    const sentences = Array.from(
      { length: 5000 },
      (_, i) => `line ${i}\n"é" \u2028 ${"x".repeat(i % 50)}`,
    );
    const buffer = parquetWriteBuffer({
      columnData: [
        { name: "sentence", data: sentences, type: "STRING" },
        { name: "label", data: sentences.map((_, i) => BigInt(i % 2)), type: "INT64" },
        { name: "score", data: sentences.map((_, i) => i / 3), type: "DOUBLE" },
      ],
    });
    expect(await readTable(await write(new Uint8Array(buffer)))).toEqual(
      sentences.map((sentence, i) => ({ sentence, label: i % 2, score: i / 3 })),
    );
  });

  test("that is none is refused with the reason", async () => {
    const path = await write("PAR1 not really");
    await expect(readTable(path)).rejects.toMatchObject({
      code: "invalid-file",
      message: `${path}: parquet file invalid (footer != PAR1)`,
    });
  });

  // Of two rows each. V8 ends the process for the first one; the second takes memory that V8 does not limit.
  test.each([
    [
      "a run of 2^30 - 1 values",
      "UEFSMRUEFQwVDEwVAhUEAAACAAAAb2sVABUOFQ4sFQQVEBUGFQYAAAH+////BwAVAhksSAZzY2hlbWEVAgAVDCUAGAhzZW50ZW5jZSUAABYEGRwZHCYIHBUMGRUQGRgIc2VudGVuY2UVABYEFlYWViYuJggAABZWFgQAAE0AAABQQVIx",
    ],
    [
      "a page of 2^29 equal values",
      "UEFSMRUAFRwVHCwVgICAgAQVChUGFQYAAICAgIAEAYCAgIACAAAAFQIZLEgGc2NoZW1hFQIAFQQlABgFbGFiZWwAFgQZHBkcJggcFQQZFQoZGAVsYWJlbBUAFoCAgIAEFkYWRiYIAAAWRhYEAABHAAAAUEFSMQ==",
    ],
  ])("that has %s in a hundred bytes is refused", async (_, base64) => {
    const path = await write(Buffer.from(base64, "base64"));
    await expect(readTable(path)).rejects.toMatchObject({
      code: "invalid-file",
      message: `${path}: expected it to be read with 2 GiB of memory, in 5 minutes`,
    });
  });

  test("can be interrupted", async () => {
    const path = await write("PAR1 not really");
    const reading = readTable(path, {}, AbortSignal.timeout(1));
    await expect(reading).rejects.toMatchObject({ code: "aborted" });
  });
});
