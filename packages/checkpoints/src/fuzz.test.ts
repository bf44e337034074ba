import { truncate, writeFile } from "node:fs/promises";
import { EspalierError } from "@espalier/base";
import { describe, expect, test } from "vitest";
import { expectOneLine, readFixture, temporaryDirectory } from "./fixtures/files.ts";
import { type CheckpointTensor, readCheckpoint, readNpy } from "./index.ts";

const inTemporary = temporaryDirectory();

const readers: [string, (path: string) => Promise<unknown>][] = [
  ["names.safetensors", readCheckpoint],
  ["torch-2.15-protocol-4.pt", readCheckpoint],
  ["torch-1.13-zip.pt", readCheckpoint],
  ["torch-1.13-legacy.pt", readCheckpoint],
  ["torch-2.15-training.pt", readCheckpoint],
  ["float32.npy", readNpy],
];

/** mulberry32: a small generator with a seed, so that a failure can be repeated. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Whether the file was read; refusing it in one line is the only other outcome allowed. */
async function isRead(read: (path: string) => Promise<unknown>, path: string): Promise<boolean> {
  const outcome = await read(path).catch((error: unknown) => error);
  if (outcome instanceof Error || EspalierError.isInstance(outcome)) {
    expectOneLine(outcome, path);
    return false;
  }
  return true;
}

describe.each(readers)("%s", (name, read) => {
  test("cut off anywhere is refused", async () => {
    const path = inTemporary(`cut-${name}`);
    const content = await readFixture(name);
    await writeFile(path, content);
    expect(await isRead(read, path)).toBe(true);
    for (let length = content.length - 1; length >= 0; length--) {
      await truncate(path, length);
      if (await isRead(read, path)) throw new Error(`${name} was read from ${length} bytes`);
    }
  });

  test("with bytes changed is read or refused", async () => {
    const path = inTemporary(`changed-${name}`);
    const original = await readFixture(name);
    const random = randomNumbers(1);
    for (let run = 0; run < 2000; run++) {
      const content = Buffer.from(original);
      for (let change = random(4); change >= 0; change--) {
        // Half of the changes flip a bit, half take any byte, so that other opcodes come up too.
        const index = random(content.length);
        content[index] = random(2) === 0 ? content[index]! ^ (1 << random(8)) : random(256);
      }
      await writeFile(path, content);
      await isRead(read, path);
    }
  });
});

test("tensors read from changed files fill their shapes", async () => {
  const path = inTemporary("shapes.pt");
  const original = await readFixture("torch-1.13-zip.pt");
  const random = randomNumbers(2);
  let read = 0;
  for (let run = 0; run < 500; run++) {
    const content = Buffer.from(original);
    content[random(content.length)] = random(256);
    await writeFile(path, content);
    const checkpoint = await readCheckpoint(path).catch(() => undefined);
    if (checkpoint === undefined) continue;
    read++;
    for (const { dtype, shape, data } of checkpoint.tensors.values()) {
      const count = shape.reduce((product, size) => product * size, 1);
      const bits = dtype === "BOOL" ? 8 : Number(/\d+/.exec(dtype)![0]);
      expect((data as CheckpointTensor["data"]).length * 8).toBe(count * bits);
    }
  }
  expect(read).toBeGreaterThan(50);
});
