import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { alignedRows, peersSection } from "./peers.ts";

test("traces of rows are compared weight by weight, whatever their order", () => {
  const [ours, theirs] = alignedRows(
    { "a.weight": [1, 2], "b.weight": [3] },
    { "b.weight": [30], "a.weight": [10, 20], "fc.weight": [5] },
  );
  expect([...ours]).toEqual([1, 2, 3]);
  expect([...theirs]).toEqual([10, 20, 30]);
  expect(() => alignedRows({ a: [1, 2] }, { a: [1] })).toThrow(
    "expected as many as ours, 2, got 1",
  );
  expect(() => alignedRows({ a: [1] }, { b: [1] })).toThrow("expected as many as ours, 0, got 0");
});

test("without a result the page says so", async () => {
  const directory = await mkdtemp(join(tmpdir(), "espalier-peers-"));
  expect(await peersSection(directory)).toContain("Not measured yet.");
  await rm(directory, { recursive: true });
});
