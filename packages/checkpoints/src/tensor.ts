/** @file What a checkpoint holds: tensors as raw bytes with a type and a shape. */

/**
 * Element types, named as in safetensors, with the arrays that hold their bits in JavaScript and
 * their names in NumPy and PyTorch. The order is that in which the reference implementation of
 * safetensors lays out tensors.
 */
export const DTYPES = {
  U64: { bytes: 8, array: BigUint64Array, numpy: "<u8", torch: ["uint64"] },
  I64: { bytes: 8, array: BigInt64Array, numpy: "<i8", torch: ["int64", "LongStorage"] },
  F64: { bytes: 8, array: Float64Array, numpy: "<f8", torch: ["float64", "DoubleStorage"] },
  F32: { bytes: 4, array: Float32Array, numpy: "<f4", torch: ["float32", "FloatStorage"] },
  U32: { bytes: 4, array: Uint32Array, numpy: "<u4", torch: ["uint32"] },
  I32: { bytes: 4, array: Int32Array, numpy: "<i4", torch: ["int32", "IntStorage"] },
  BF16: { bytes: 2, array: Uint16Array, numpy: undefined, torch: ["bfloat16", "BFloat16Storage"] },
  F16: { bytes: 2, array: Uint16Array, numpy: "<f2", torch: ["float16", "HalfStorage"] },
  U16: { bytes: 2, array: Uint16Array, numpy: "<u2", torch: ["uint16"] },
  I16: { bytes: 2, array: Int16Array, numpy: "<i2", torch: ["int16", "ShortStorage"] },
  I8: { bytes: 1, array: Int8Array, numpy: "|i1", torch: ["int8", "CharStorage"] },
  U8: { bytes: 1, array: Uint8Array, numpy: "|u1", torch: ["uint8", "ByteStorage"] },
  BOOL: { bytes: 1, array: Uint8Array, numpy: "|b1", torch: ["bool", "BoolStorage"] },
} as const;

export type CheckpointDtype = keyof typeof DTYPES;

export const DTYPE_NAMES = Object.keys(DTYPES) as CheckpointDtype[];

export interface CheckpointTensor {
  readonly dtype: CheckpointDtype;
  /** Empty for a scalar. */
  readonly shape: readonly number[];
  /** The elements, row by row (C order), little endian. Tensors tied in a file may share memory. */
  readonly data: Uint8Array;
}

/** Number of elements, or undefined where `shape` is no list of sizes with an exact product. */
export function elementCount(shape: readonly unknown[]): number | undefined {
  let count = 1;
  for (const size of shape) {
    if (!isSize(size)) return undefined;
    count *= size;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

/** Bytes of a tensor, or undefined where `shape` is not one. */
export function byteCount(dtype: CheckpointDtype, shape: readonly unknown[]): number | undefined {
  const count = elementCount(shape);
  return count === undefined ? undefined : count * DTYPES[dtype].bytes;
}

/** Whether `value` can be a size, an offset or a stride. */
export function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The elements as JavaScript numbers: a view where the memory allows one, otherwise a copy. */
export function elements({ dtype, data }: CheckpointTensor) {
  const { bytes, array } = DTYPES[dtype];
  // Typed arrays begin at multiples of their element size only.
  const { buffer, byteOffset, byteLength } =
    data.byteOffset % bytes === 0 ? data : new Uint8Array(data);
  const raw = new array(buffer as ArrayBuffer, byteOffset, byteLength / bytes);
  if (dtype === "BF16") return widenBfloat16(raw as Uint16Array);
  if (dtype === "F16") return widenFloat16(raw as Uint16Array);
  return raw;
}

/** A bfloat16 is the upper half of a float32. */
function widenBfloat16(halves: Uint16Array): Float32Array {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** IEEE 754 binary16 (1 sign, 5 exponent, 10 fraction bits) to binary32 (1, 8, 23). */
function widenFloat16(halves: Uint16Array): Float32Array {
  const floats = new Float32Array(halves.length);
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i]!;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      floats[i] = (half & 0x8000 ? -1 : 1) * fraction * 2 ** -24;
    } else {
      // 112 is the difference of the exponent biases, 127 - 15; all ones is infinity or NaN.
      const widened = exponent === 0x1f ? 0xff : exponent + 112;
      bits[i] = ((half & 0x8000) << 16) | (widened << 23) | (fraction << 13);
    }
  }
  return floats;
}
