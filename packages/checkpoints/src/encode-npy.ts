/** @file A tensor as the bytes of a NumPy array. */
import { EspalierError } from "@espalier/base";
import { type CheckpointTensor, DTYPES } from "./tensor.ts";

export const NPY_MAGIC = Buffer.from("\x93NUMPY", "latin1");

/**
 * The bytes of a `.npy` file, version 1.0.
 *
 * @throws EspalierError `invalid-argument` for BF16, which NumPy does not have.
 */
export function encodeNpy({ dtype, shape, data }: CheckpointTensor): Uint8Array {
  const { numpy } = DTYPES[dtype];
  if (numpy === undefined) {
    throw new EspalierError("invalid-argument", `expected a type that NumPy has, got ${dtype}`);
  }
  // Python writes a tuple of one as (3,).
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${numpy}', 'fortran_order': False, 'shape': (${tuple}), }`;
  // The format wants the data to start at a multiple of 64 and the header to end in a line feed.
  const prefixBytes = NPY_MAGIC.length + 4;
  const headerBytes = Math.ceil((prefixBytes + text.length + 1) / 64) * 64 - prefixBytes;
  const prefix = Buffer.from([...NPY_MAGIC, 1, 0, headerBytes & 0xff, headerBytes >> 8]);
  return Buffer.concat([prefix, Buffer.from(`${text.padEnd(headerBytes - 1)}\n`), data]);
}
