import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fixture } from "./fixtures/files.ts";
import {
  assertFinite,
  type CheckpointDtype,
  type CheckpointTensor,
  float32Tensor,
  readSafetensors,
  toFloat32,
} from "./index.ts";

const tensor = (dtype: CheckpointDtype, values: NodeJS.TypedArray): CheckpointTensor => ({
  dtype,
  shape: [values.length],
  data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

describe("toFloat32", () => {
  // Values as torch.Tensor.to(torch.float32) gives them for scripts/make-fixtures.py.
  test.each<[string, number[]]>([
    ["f64", [0.3333333432674408, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]],
    ["f32", [0.10000000149011612, -2.5, 9.99994610111476e-41, Number.NaN]],
    ["f16", [1.5, -65504, 2 ** -24, Number.POSITIVE_INFINITY, -0, 0.333251953125]],
    ["bf16", [1.5, -226 * 2 ** 120, 9.183549615799121e-41, Number.NaN, 0.333984375]],
    ["i64", [-(2 ** 63), 2 ** 53, 3]],
    ["i32", [-(2 ** 31), 7]],
    ["i16", [-(2 ** 15), 7]],
    ["i8", [-128, 127]],
    ["u8", [0, 255]],
    ["bool", [1, 0, 1]],
    ["scalar", [2.5]],
    ["empty", []],
    ["transposed_shared", [0, 0.75, 1.5, 2.25, 0.25, 1, 1.75, 2.5, 0.5, 1.25, 2, 2.75]],
    ["every_second_i64", [1, 3, 5]],
  ])("%s", async (name, expected) => {
    const { tensors } = await readSafetensors(fixture("expected.safetensors"));
    expect([...toFloat32(tensors.get(name)!)]).toEqual(expected);
  });

  test("all 65536 values of F16", () => {
    const halves = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
    const floats = toFloat32(tensor("F16", halves));
    for (const [bits, value] of floats.entries()) {
      const sign = bits < 0x8000 ? 1 : -1;
      const exponent = (bits >> 10) & 31;
      const fraction = (bits & 1023) / 1024;
      const special = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
      const expected =
        exponent === 31
          ? special
          : sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
      if (!Object.is(value, expected)) expect({ bits, value }).toEqual({ bits, value: expected });
    }
  });

  test("unsigned integers", () => {
    expect([...toFloat32(tensor("U64", BigUint64Array.of(2n ** 63n)))]).toEqual([2 ** 63]);
    expect([...toFloat32(tensor("U32", Uint32Array.of(2 ** 31)))]).toEqual([2 ** 31]);
    expect([...toFloat32(tensor("U16", Uint16Array.of(65535)))]).toEqual([65535]);
  });

  test("booleans of any byte", () => {
    expect([...toFloat32(tensor("BOOL", Uint8Array.of(0, 1, 2, 255)))]).toEqual([0, 1, 1, 1]);
  });

  test("gives a copy, of data that is aligned or not", () => {
    fc.assert(
      fc.property(fc.float32Array(), fc.nat({ max: 7 }), (values, shift) => {
        const data = new Uint8Array(values.byteLength + shift).subarray(shift);
        data.set(tensor("F32", values).data);
        const floats = toFloat32({ dtype: "F32", shape: [values.length], data });
        expect(floats).toEqual(values);
        expect(floats.buffer).not.toBe(data.buffer);
      }),
    );
  });
});

describe("float32Tensor", () => {
  test("takes a window of memory", () => {
    const values = Float32Array.of(0, 1, 2, 3).subarray(1, 3);
    expect([...toFloat32(float32Tensor([2, 1], values))]).toEqual([1, 2]);
  });

  test.each([[[3]], [[]], [[-2]], [[1.5]]])("refuses shape %j for two elements", (shape) => {
    expect(() => float32Tensor(shape, new Float32Array(2))).toThrow(/expected the elements of/);
  });
});

describe("assertFinite", () => {
  test.each<[CheckpointDtype, NodeJS.TypedArray]>([
    ["F32", Float32Array.of(1, Number.NaN)],
    ["F64", Float64Array.of(1, Number.NEGATIVE_INFINITY)],
    ["F16", Uint16Array.of(0x3c00, 0x7c00)],
    ["BF16", Uint16Array.of(0x3f80, 0x7fc0)],
  ])("names the element of %s", (dtype, values) => {
    const check = () => assertFinite(tensor(dtype, values), "fc.weight", "model.pt");
    expect(check).toThrow(/^model\.pt: tensor "fc\.weight": .* as element 1 of 2$/);
    expect(check).toThrow(expect.objectContaining({ code: "not-finite" }));
  });

  test("accepts the largest float64 and any integer", () => {
    assertFinite(tensor("F64", Float64Array.of(Number.MAX_VALUE)), "a", "b");
    assertFinite(tensor("I64", BigInt64Array.of(-1n)), "a", "b");
  });
});
