/** @file Reads safetensors files. */
import { ByteReader } from "./byte-reader.ts";
import { type Checkpoint, DEFAULT_HEADER_BYTES, type ReadLimits } from "./checkpoint.ts";
import { parseSafetensorsHeader } from "./safetensors-header.ts";
import { SourceFile } from "./source-file.ts";
import type { CheckpointTensor } from "./tensor.ts";

/** Bytes of the little-endian number that tells the length of the header. */
const PREFIX_BYTES = 8;

/**
 * Reads all tensors of a safetensors file.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` where the file breaks the format's rules:
 *   the tensors must cover the data without gap or overlap and fit their types and shapes.
 */
export function readSafetensors(path: string, limits: ReadLimits = {}): Promise<Checkpoint> {
  return SourceFile.use(path, (file) => readSafetensorsFile(file, limits));
}

/** Whether the first bytes can be those of a safetensors file: a length and a JSON object. */
export async function isSafetensors(file: SourceFile): Promise<boolean> {
  if (file.size <= PREFIX_BYTES) return false;
  const [start] = await file.read(PREFIX_BYTES, 1);
  return start === "{".charCodeAt(0);
}

/** As `readSafetensors`, of a file that is open. */
export async function readSafetensorsFile(
  file: SourceFile,
  { headerBytes = DEFAULT_HEADER_BYTES, tensorBytes = file.size }: ReadLimits,
): Promise<Checkpoint> {
  const headerLength = new ByteReader(await file.read(0, PREFIX_BYTES), file.fail).uint64();
  if (headerLength > headerBytes) {
    throw file.fail(`expected a header of at most ${headerBytes} bytes, got ${headerLength}`);
  }
  const headerReader = new ByteReader(await file.read(PREFIX_BYTES, headerLength), file.fail);
  const dataStart = PREFIX_BYTES + headerLength;
  const dataBytes = file.size - dataStart;
  if (dataBytes > tensorBytes) {
    throw file.fail(`expected at most ${tensorBytes} bytes of tensors, got ${dataBytes}`);
  }
  const header = parseSafetensorsHeader(headerReader.text(headerLength), dataBytes, file.fail);
  const tensors = new Map<string, CheckpointTensor>();
  for (const { name, dtype, shape, start, end } of header.ranges) {
    const data = await file.read(dataStart + start, end - start);
    tensors.set(name, { dtype, shape, data });
  }
  return { tensors, metadata: header.metadata, format: "safetensors", path: file.path };
}
