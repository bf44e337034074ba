/** @file The JSON header of a safetensors file, checked as the reference implementation does. */
import { parseJson, quote, show } from "@espalier/base";
import type { Fail } from "./source-file.ts";
import { byteCount, type CheckpointDtype, DTYPE_NAMES, isSize } from "./tensor.ts";

/** The one header key that is not a tensor. */
export const METADATA_KEY = "__metadata__";

/** Where a tensor lies, in bytes from the end of the header. */
export interface TensorRange {
  readonly name: string;
  readonly dtype: CheckpointDtype;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In the order of the data, which they cover without gap or overlap. */
  readonly ranges: readonly TensorRange[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** @param dataBytes Bytes between the end of the header and the end of the file. */
export function parseSafetensorsHeader(
  text: string,
  dataBytes: number,
  fail: Fail,
): SafetensorsHeader {
  const header = parseHeader(text, fail);
  if (!isObject(header)) throw fail("expected the header to be a JSON object");

  const ranges: TensorRange[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === METADATA_KEY) metadata = parseMetadata(value, fail);
    else ranges.push(parseRange(name, value, fail));
  }
  ranges.sort((a, b) => a.start - b.start || a.end - b.end);
  let covered = 0;
  for (const { name, start, end } of ranges) {
    if (start !== covered) {
      const defect = start < covered ? "an overlap" : "a gap";
      throw fail(
        `tensor ${quote(name)}: expected data from byte ${covered}, got ${start}: ${defect}`,
        { tensor: name },
      );
    }
    covered = end;
  }
  if (covered !== dataBytes) {
    throw fail(`expected ${covered} bytes of tensors after the header, got ${dataBytes}`);
  }
  return { ranges, metadata };
}

function parseRange(name: string, value: unknown, fail: Fail): TensorRange {
  const failTensor = (message: string) =>
    fail(`tensor ${quote(name)}: ${message}`, { tensor: name });
  if (!isObject(value)) throw failTensor("expected an object with dtype, shape and data_offsets");
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = DTYPE_NAMES.find((known) => known === dtypeName);
  if (dtype === undefined) {
    throw failTensor(`expected dtype ${DTYPE_NAMES.join(", ")}, got ${show(dtypeName)}`);
  }
  const bytes = Array.isArray(shape) ? byteCount(dtype, shape) : undefined;
  if (bytes === undefined) {
    throw failTensor(`expected shape to be a list of sizes, got ${show(shape)}`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw failTensor(`expected data_offsets [start, end], got ${show(offsets)}`);
  }
  const [start, end] = offsets as [number, number];
  if (end - start !== bytes) {
    throw failTensor(
      `expected ${bytes} bytes for ${dtype} ${show(shape)}, got data_offsets ${show(offsets)}`,
    );
  }
  return { name, dtype, shape: shape as number[], start, end };
}

function parseMetadata(value: unknown, fail: Fail): Record<string, string> {
  if (!isObject(value) || !Object.values(value).every((item) => typeof item === "string")) {
    throw fail(`expected ${METADATA_KEY} to map names to strings`);
  }
  return value as Record<string, string>;
}

function parseHeader(text: string, fail: Fail): unknown {
  try {
    // Headers nest three deep.
    return parseJson(text, { depth: 8, uniqueKeys: true });
  } catch (error) {
    throw fail(`expected a JSON header: ${quote((error as Error).message)}`);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
