import { writeFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bytes, uint16 } from "./fixtures/build.ts";
import { expectRefusal, fixture, readFixture, temporaryDirectory } from "./fixtures/files.ts";
import { encodeNpy, float32Tensor, readNpy, toFloat32 } from "./index.ts";

const inTemporary = temporaryDirectory();

describe("files of NumPy", () => {
  test.each([
    ["float32.npy", { dtype: "F32", shape: [2, 3] }, [0, 1, 2, 3, 4, 5]],
    ["int64.npy", { dtype: "I64", shape: [3] }, [0, 1, 2]],
    ["scalar.npy", { dtype: "F64", shape: [] }, [1.5]],
  ])("%s is read, and written with the same bytes", async (name, expected, values) => {
    const tensor = await readNpy(fixture(name));
    expect(tensor).toMatchObject(expected);
    expect([...toFloat32(tensor)]).toEqual(values);
    expect(Buffer.from(encodeNpy(tensor)).equals(await readFixture(name))).toBe(true);
  });

  test.each([
    ["object.npy", /an array of type "\|O"/],
    ["big-endian.npy", /an array of type ">f4"/],
    ["fortran.npy", /C order, got Fortran order/],
    ["structured.npy", /one type/],
  ])("%s is refused", async (name, message) => {
    await expectRefusal(readNpy, inTemporary(name), await readFixture(name), message);
  });
});

test("arrays come back, whatever they are", async () => {
  const path = inTemporary("round-trip.npy");
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: 5 }), { maxLength: 4 }), async (shape) => {
      const count = shape.reduce((product, size) => product * size, 1);
      const tensor = float32Tensor(
        shape,
        Float32Array.from({ length: count }, (_, i) => i / 3),
      );
      const encoded = encodeNpy(tensor);
      expect((encoded.length - tensor.data.length) % 64).toBe(0);
      await writeFile(path, encoded);
      expect(await readNpy(path)).toEqual(tensor);
    }),
  );
});

test("NumPy has no bfloat16", () => {
  expect(() => encodeNpy({ dtype: "BF16", shape: [0], data: new Uint8Array() })).toThrow(/BF16/);
});

describe("hostile files are refused", () => {
  const array = (header: string, data = new Uint8Array(8), length = header.length) =>
    bytes(0x93, "NUMPY", 1, 0, uint16(length), header, data);
  const header = (shape: string) => `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  test.each<[string, Uint8Array, RegExp]>([
    ["empty", bytes(), /ends at byte 0/],
    ["another format", bytes("PK\x03\x04", new Uint8Array(20)), /a NumPy array/],
    ["an unknown version", bytes(0x93, "NUMPY", 9, 0, 0, 0, 0, 0), /version 1, 2 or 3, got 9/],
    ["a header beyond the file", array(header("(2,)"), new Uint8Array(8), 60_000), /60000 bytes/],
    ["a header of 4 GB", bytes(0x93, "NUMPY", 2, 0, 255, 255, 255, 255), /at most 25000000/],
    ["no shape", array("{'descr': '<f4', 'fortran_order': False}"), /a shape/],
    ["another size", array(header("(3,)")), /the bytes of F32 \[3\], got 8 bytes/],
    ["a shape that overflows", array(header("(4294967296, 4294967296)")), /the bytes of F32/],
    ["a negative size", array(header("(-2,)")), /a shape/],
  ])("%s", async (_name, content, message) => {
    await expectRefusal(readNpy, inTemporary("hostile.npy"), content, message);
  });
});
