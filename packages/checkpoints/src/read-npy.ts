/** @file Reads NumPy arrays. */
import { quote } from "@espalier/base";
import { ByteReader } from "./byte-reader.ts";
import { DEFAULT_HEADER_BYTES, type ReadLimits } from "./checkpoint.ts";
import { NPY_MAGIC } from "./encode-npy.ts";
import { SourceFile } from "./source-file.ts";
import { byteCount, type CheckpointTensor, DTYPE_NAMES, DTYPES } from "./tensor.ts";

/** Magic, version and the longer of the two forms of the header's length. */
const LONGEST_PREFIX = 12;

/**
 * Reads a `.npy` file of numbers or booleans, little endian and in C order.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` for everything else, such as arrays of Python
 *   objects, which only Python could rebuild.
 */
export function readNpy(path: string, limits: ReadLimits = {}): Promise<CheckpointTensor> {
  const { headerBytes = DEFAULT_HEADER_BYTES, tensorBytes = Number.POSITIVE_INFINITY } = limits;
  return SourceFile.use(path, async (file) => {
    const { fail } = file;
    const prefix = new ByteReader(await file.read(0, Math.min(LONGEST_PREFIX, file.size)), fail);
    if (!NPY_MAGIC.equals(prefix.bytes(NPY_MAGIC.length))) throw fail("expected a NumPy array");
    const version = prefix.uint16();
    if (![1, 2, 3].includes(version)) throw fail(`expected npy version 1, 2 or 3, got ${version}`);
    const headerLength = version === 1 ? prefix.uint16() : prefix.uint32();
    if (headerLength > headerBytes) {
      throw fail(`expected a header of at most ${headerBytes} bytes, got ${headerLength}`);
    }
    const dataStart = prefix.position + headerLength;
    const header = new ByteReader(await file.read(prefix.position, headerLength), fail);
    const { dtype, shape } = parseHeader(header.text(headerLength), fail);
    const bytes = byteCount(dtype, shape);
    if (bytes !== file.size - dataStart) {
      throw fail(`expected the bytes of ${dtype} [${shape}], got ${file.size - dataStart} bytes`);
    }
    if (bytes > tensorBytes) throw fail(`expected at most ${tensorBytes} bytes, got ${bytes}`);
    return { dtype, shape, data: await file.read(dataStart, bytes) };
  });
}

/** The header is a Python dict: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`. */
function parseHeader(text: string, fail: SourceFile["fail"]): Omit<CheckpointTensor, "data"> {
  const descr = /'descr': *'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order': *(True|False)/.exec(text)?.[1];
  const shape = /'shape': *\(([\d, ]*)\)/.exec(text)?.[1];
  if (descr === undefined || order === undefined || shape === undefined) {
    throw fail(`expected a header with one type, an order and a shape, got ${quote(text.trim())}`);
  }
  const dtype = DTYPE_NAMES.find((name) => DTYPES[name].numpy === descr);
  if (dtype === undefined) {
    throw fail(`expected little-endian numbers or booleans, got an array of type ${quote(descr)}`);
  }
  if (order === "True") throw fail("expected an array in C order, got Fortran order");
  return { dtype, shape: (shape.match(/\d+/g) ?? []).map(Number) };
}
