import { readFile, writeFile } from "node:fs/promises";
import { EspalierError } from "@espalier/base";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bytes, safetensors } from "./fixtures/build.ts";
import { expectRefusal, fixture, readFixture, temporaryDirectory } from "./fixtures/files.ts";
import {
  type CheckpointTensor,
  encodeSafetensors,
  float32Tensor,
  readCheckpoint,
  readSafetensors,
  toFloat32,
  writeSafetensors,
} from "./index.ts";
import { DTYPE_NAMES, DTYPES } from "./tensor.ts";

const inTemporary = temporaryDirectory();

const dtypes = fc.constantFrom(...DTYPE_NAMES);
const shapes = fc.array(fc.nat({ max: 4 }), { maxLength: 4 });
const tensorOf = fc.tuple(dtypes, shapes).chain(([dtype, shape]) => {
  const length = shape.reduce((count, size) => count * size, 1) * DTYPES[dtype].bytes;
  return fc
    .uint8Array({ minLength: length, maxLength: length })
    .map((data): CheckpointTensor => ({ dtype, shape, data }));
});
const names = fc.string({ unit: "binary" }).filter((name) => name !== "__metadata__");
const checkpoints = fc.record({
  tensors: fc.uniqueArray(fc.tuple(names, tensorOf), { selector: ([name]) => name }),
  metadata: fc.dictionary(fc.string({ unit: "binary" }), fc.string({ unit: "binary" })),
});

describe("the reference implementation", () => {
  test.each(["expected.safetensors", "names.safetensors"])(
    "%s is read, and written with the same bytes",
    async (name) => {
      const { tensors, metadata } = await readSafetensors(fixture(name));
      const shuffled = new Map([...tensors].reverse());
      const written = Buffer.concat(encodeSafetensors(shuffled, metadata));
      expect(written.equals(await readFixture(name))).toBe(true);
    },
  );

  test("names and metadata", async () => {
    const { tensors, metadata, format } = await readCheckpoint(fixture("names.safetensors"));
    expect(format).toBe("safetensors");
    expect(metadata).toEqual({ note: "espalieré\n" });
    expect([...tensors.keys()]).toEqual([
      "wide",
      "10",
      "9",
      "__proto__",
      "empty",
      "\uff5a",
      "\u{1f333}",
      "e\u0301",
      'quoted "name"\n\u2028\x7f/',
    ]);
    expect(tensors.get("empty")).toEqual({ dtype: "F32", shape: [0, 2], data: new Uint8Array() });
    expect([...toFloat32(tensors.get("wide")!)]).toEqual([0, 1]);
  });
});

describe("round trips", () => {
  test("tensors and metadata come back, whatever they are", async () => {
    const path = inTemporary("round-trip.safetensors");
    await fc.assert(
      fc.asyncProperty(checkpoints, async ({ tensors, metadata }) => {
        const expected = new Map(tensors);
        await writeFile(path, Buffer.concat(encodeSafetensors(expected, metadata)));
        const read = await readSafetensors(path);
        expect(read.tensors.size).toBe(expected.size);
        for (const [name, tensor] of read.tensors) expect(tensor).toEqual(expected.get(name));
        expect(Object.entries(read.metadata).sort()).toEqual(Object.entries(metadata).sort());
      }),
      { numRuns: 300 },
    );
  });

  test("the order of tensors and metadata does not change the bytes", () => {
    fc.assert(
      fc.property(checkpoints, ({ tensors, metadata }) => {
        const reversed = Object.fromEntries(Object.entries(metadata).reverse());
        const first = Buffer.concat(encodeSafetensors(new Map(tensors), metadata));
        const second = Buffer.concat(encodeSafetensors(new Map(tensors.toReversed()), reversed));
        expect(first.equals(second)).toBe(true);
        expect(first.readBigUInt64LE() % 8n).toBe(0n);
      }),
    );
  });

  test("a file, atomically", async () => {
    const path = inTemporary("written.safetensors");
    const tensors = new Map([["w", float32Tensor([2], Float32Array.of(1, 2))]]);
    await writeSafetensors(path, tensors, { epoch: "3" });
    const content = await readFile(path);
    expect(content.equals(Buffer.concat(encodeSafetensors(tensors, { epoch: "3" })))).toBe(true);
    const wrong = new Map([["w", { dtype: "F32", shape: [3], data: new Uint8Array(8) } as const]]);
    const writing = writeSafetensors(path, wrong);
    await expect(writing).rejects.toMatchObject({ code: "invalid-argument" });
    expect(content.equals(await readFile(path))).toBe(true);
  });
});

describe("tensors that cannot be written", () => {
  test.each<[string, string, CheckpointTensor, RegExp]>([
    [
      "too little data",
      "w",
      { dtype: "F32", shape: [3], data: new Uint8Array(8) },
      /tensor "w": expected the bytes of F32 \[3\], got 8/,
    ],
    ["a negative size", "w", { dtype: "F32", shape: [-1], data: new Uint8Array(4) }, /\[-1\]/],
    ["the reserved name", "__metadata__", float32Tensor([0], new Float32Array()), /reserves/],
  ])("%s", (_name, name, tensor, message) => {
    const encode = () => encodeSafetensors(new Map([[name, tensor]]));
    expect(encode).toThrow(EspalierError);
    expect(encode).toThrow(message);
  });
});

describe("hostile files are refused", () => {
  const a = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
  const eight = new Uint8Array(8);
  test.each<[string, Uint8Array, RegExp]>([
    ["shorter than its prefix", bytes(1, 0, 0), /ends at byte 3/],
    ["a header beyond the file", safetensors({ a }, eight, 1000), /expected 1000 bytes at byte 8/],
    ["a header of 2^63 bytes", safetensors({ a }, eight, 2n ** 63n), /below 2\^53/],
    ["a header of 25 MB and a byte", safetensors({ a }, eight, 25_000_001), /at most 25000000/],
    ["a header cut short", safetensors(JSON.stringify({ a }), eight, 30), /JSON/],
    ["a header that is not UTF-8", safetensors({ a }, new Uint8Array(60).fill(0xff), 60), /UTF-8/],
    ["a header that is no object", safetensors("[1]"), /a JSON object/],
    ["a header with an error over two lines", safetensors('{"a":\n\nx}'), /expected a JSON header/],
    [
      "a million brackets",
      safetensors("[".repeat(1e6)),
      /expected a JSON header: .*more than 8 levels/,
    ],
    ["a tensor twice", safetensors(`{"a":${JSON.stringify(a)},"\\u0061":0}`), /the key a twice/],
    [
      "a dtype twice",
      safetensors('{"a":{"dtype":"F32","dtype" \n :"F64"}}'),
      /the key dtype twice/,
    ],
    ["a tensor that is no object", safetensors({ a: 1 }), /tensor "a": expected an object/],
    ["an unknown dtype", safetensors({ a: { ...a, dtype: "F33" } }, eight), /got "F33"/],
    [
      "a dtype of every object",
      safetensors({ a: { ...a, dtype: "toString" } }, eight),
      /"toString"/,
    ],
    ["no dtype", safetensors({ a: { shape: [], data_offsets: [0, 0] } }), /got nothing/],
    ["a shape that is no list", safetensors({ a: { ...a, shape: "2" } }, eight), /list of sizes/],
    ["a negative size", safetensors({ a: { ...a, shape: [-2] } }, eight), /list of sizes/],
    ["half a size", safetensors({ a: { ...a, shape: [0.5] } }, eight), /list of sizes/],
    ["a shape that overflows", safetensors({ a: { ...a, shape: [2 ** 32, 2 ** 32] } }), /list of/],
    [
      "a shape that overflows to zero",
      safetensors({ a: { ...a, shape: [2 ** 32, 2 ** 32, 0], data_offsets: [0, 0] } }),
      /list of/,
    ],
    [
      "a shape of another size",
      safetensors({ a: { ...a, shape: [3] } }, eight),
      /expected 12 bytes for F32 \[3\]/,
    ],
    ["offsets beyond the file", safetensors({ a }, new Uint8Array(4)), /expected 8 bytes.*got 4/],
    ["bytes after the tensors", safetensors({ a }, new Uint8Array(9)), /expected 8 bytes.*got 9/],
    [
      "three offsets",
      safetensors({ a: { ...a, data_offsets: [0, 8, 8] } }, eight),
      /\[start, end\]/,
    ],
    [
      "reversed offsets",
      safetensors({ a: { ...a, data_offsets: [8, 0] } }, eight),
      /expected 8 bytes for F32/,
    ],
    [
      "negative offsets",
      safetensors({ a: { ...a, data_offsets: [-8, 0] } }, eight),
      /\[start, end\]/,
    ],
    [
      "tensors that overlap",
      safetensors({ a, b: { ...a, data_offsets: [4, 12] } }, new Uint8Array(12)),
      /tensor "b": .*from byte 8, got 4: an overlap/,
    ],
    ["tensors in one place", safetensors({ a, b: a }, eight), /tensor "b": .*an overlap/],
    [
      "a gap",
      safetensors({ a, b: { ...a, data_offsets: [12, 20] } }, new Uint8Array(20)),
      /tensor "b": .*from byte 8, got 12: a gap/,
    ],
    ["metadata that is no object", safetensors({ __metadata__: [], a }, eight), /names to strings/],
    ["metadata of numbers", safetensors({ __metadata__: { x: 1 }, a }, eight), /names to strings/],
    ["a long name", safetensors({ ["x".repeat(1e5)]: 1 }), /tensor "x{80}…"/],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readSafetensors, inTemporary("hostile.safetensors"), content, message);
  });

  test("__proto__ is a name like another", async () => {
    const path = inTemporary("proto.safetensors");
    const header = `{"__proto__":${JSON.stringify(a)},"__metadata__":{"__proto__":"x"}}`;
    await writeFile(path, safetensors(header, eight));
    const { tensors, metadata } = await readSafetensors(path);
    expect([...tensors.keys()]).toEqual(["__proto__"]);
    expect(Object.entries(metadata)).toEqual([["__proto__", "x"]]);
    expect(Object.getPrototypeOf(metadata)).toBe(Object.prototype);
  });

  test("limits of the caller", async () => {
    const path = inTemporary("limits.safetensors");
    const content = safetensors({ a }, eight);
    const readLimited = (file: string) => readCheckpoint(file, { tensorBytes: 7 });
    await expectRefusal(readLimited, path, content, /at most 7 bytes of tensors, got 8/);
    await expectRefusal(
      (file) => readCheckpoint(file, { headerBytes: 9 }),
      path,
      content,
      /at most 9 bytes/,
    );
  });
});
