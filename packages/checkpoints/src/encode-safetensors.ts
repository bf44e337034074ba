/** @file Tensors as the bytes of a safetensors file. */
import { EspalierError, quote } from "@espalier/base";
import { METADATA_KEY } from "./safetensors-header.ts";
import { byteCount, type CheckpointTensor, DTYPE_NAMES } from "./tensor.ts";

/**
 * The chunks of a safetensors file, in order; the tensors among them are not copied. The same tensors
 * and metadata give the same bytes in whatever order they come: the layout is that of the reference
 * implementation (by falling alignment of the type, then by name), and metadata are sorted by name.
 *
 * @throws EspalierError `invalid-argument` where a tensor's data does not fill its shape, or a tensor
 *   is named `__metadata__`.
 */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array[] {
  const sorted = [...tensors].sort(
    ([nameA, a], [nameB, b]) =>
      DTYPE_NAMES.indexOf(a.dtype) - DTYPE_NAMES.indexOf(b.dtype) || compareUtf8(nameA, nameB),
  );
  // The header is put together as text, since an object would move names such as "10" to the front.
  const fields: string[] = [];
  if (Object.keys(metadata).length > 0) {
    const items = Object.entries(metadata).sort(([a], [b]) => compareUtf8(a, b));
    fields.push(
      field(METADATA_KEY, `{${items.map(([k, v]) => field(k, JSON.stringify(v))).join()}}`),
    );
  }
  let offset = 0;
  for (const [name, tensor] of sorted) {
    checkTensor(name, tensor);
    const { dtype, shape, data } = tensor;
    const range = { dtype, shape, data_offsets: [offset, offset + data.length] };
    fields.push(field(name, JSON.stringify(range)));
    offset += data.length;
  }
  const text = Buffer.from(`{${fields.join()}}`);
  // Spaces up to a multiple of 8, so that the data is aligned in memory-mapped files.
  const header = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, " ");
  header.writeBigUInt64LE(BigInt(header.length - 8));
  text.copy(header, 8);
  return [header, ...sorted.map(([, tensor]) => tensor.data)];
}

function field(name: string, json: string): string {
  return `${JSON.stringify(name)}:${json}`;
}

function checkTensor(name: string, { dtype, shape, data }: CheckpointTensor): void {
  const defect =
    name === METADATA_KEY
      ? "expected another name, since safetensors reserves this one"
      : data.length !== byteCount(dtype, shape)
        ? `expected the bytes of ${dtype} [${shape}], got ${data.length} bytes`
        : undefined;
  if (defect === undefined) return;
  throw new EspalierError("invalid-argument", `tensor ${quote(name)}: ${defect}`, { tensor: name });
}

/** JavaScript compares UTF-16 units, which differs from the order of bytes beyond U+FFFF. */
function compareUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
