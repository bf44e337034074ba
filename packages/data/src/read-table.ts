/** @file Tables of text: comma- and tab-separated values, lines of JSON, and Parquet. */
import { isUtf8 } from "node:buffer";
import { pipeline } from "node:stream/promises";
import { setImmediate } from "node:timers/promises";
import {
  describeFileError,
  EspalierError,
  parseJson,
  quote,
  readBytes,
  statFile,
  throwIfAborted,
} from "@espalier/base";
import { CsvError, parse } from "csv-parse";
import { readParquet } from "./read-parquet.ts";

/** One row: fields by the names of their columns. */
export type Row = Readonly<Record<string, unknown>>;

export interface TableOptions {
  /** The columns of a TSV file that does not name them in its first line. */
  readonly header?: readonly string[] | undefined;
  /** Leaves out lines of TSV that have too few fields, of which they are an error otherwise. */
  readonly skipShort?: boolean | undefined;
}

/** Endings of the files that can be read. */
export const tableEndings = [".tsv", ".jsonl", ".json", ".parquet", ".csv"] as const;

// Files are read whole. The largest of GLUE's has 80 MB.
const MOST_BYTES = 2 ** 30;
// CSV is read so many bytes at a time, some milliseconds each.
const PIECE_BYTES = 2 ** 18;

/**
 * The rows of a table.
 *
 * @throws EspalierError `missing-file`, `aborted`, or `invalid-file` naming the line that is wrong.
 */
export async function readTable(
  path: string,
  options: TableOptions = {},
  signal?: AbortSignal,
): Promise<Row[]> {
  const { size } = await statFile(path);
  if (size > MOST_BYTES) {
    throw new EspalierError("invalid-file", `${path}: expected at most 1 GiB, got ${size} bytes`, {
      path,
      size,
    });
  }
  if (path.endsWith(".parquet")) {
    const bytes = await readParquet(path, MOST_BYTES, signal).catch((error: unknown) => {
      throwIfAborted(signal);
      const [reason] = (error as Error).message.split("\n");
      throw new EspalierError("invalid-file", `${path}: ${reason}`, { path }, error);
    });
    return parseJsonLines(path, linesOf(path, bytes));
  }
  const bytes = await readBytes(path);
  if (path.endsWith(".csv")) return parseCsv(path, bytes, signal);
  const lines = linesOf(path, bytes);
  return path.endsWith(".tsv") ? parseTsv(path, lines, options) : parseJsonLines(path, lines);
}

const NO_UTF8 = "expected text in UTF-8";

/** Lines as Python's text files have them: they end in \n, \r\n or \r. A byte order mark is dropped. */
function linesOf(path: string, bytes: Uint8Array): string[] {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw describeFileError(error, path, "read");
    throw new EspalierError("invalid-file", `${path}: ${NO_UTF8}`, { path }, error);
  }
  const lines = text.split(/\r\n|\r|\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** Fields may be quoted, and then have commas and line breaks in them (RFC 4180). */
async function parseCsv(
  path: string,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<Row[]> {
  const fail = (what: string, cause?: unknown) =>
    new EspalierError("invalid-file", `${path}: ${what}`, { path }, cause);
  if (!isUtf8(bytes)) throw fail(NO_UTF8);
  const columns = (names: readonly string[]) => {
    const twice = names.find((name, i) => names.indexOf(name) < i);
    if (twice !== undefined)
      throw fail(`expected columns of different names, got ${quote(twice)} twice`);
    return [...names];
  };
  const parser = parse({
    ...{ bom: true, columns, skip_empty_lines: true },
    record_delimiter: ["\r\n", "\n", "\r"],
  });
  const rows: Row[] = [];
  try {
    await pipeline(inPieces(bytes, signal), parser, async (parsed: AsyncIterable<Row>) => {
      for await (const row of parsed) rows.push(row);
    });
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw fail(error.message, error);
  }
  return rows;
}

/** Other events are handled between pieces. */
async function* inPieces(bytes: Uint8Array, signal: AbortSignal | undefined) {
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
    throwIfAborted(signal);
    yield Buffer.from(bytes.subarray(start, start + PIECE_BYTES));
    await setImmediate();
  }
}

/** Quotes mean nothing: GLUE's files have single ones. */
function parseTsv(path: string, lines: readonly string[], options: TableOptions): Row[] {
  const header = options.header ?? lines[0]?.split("\t") ?? [];
  const first = options.header === undefined ? 1 : 0;
  return lines.slice(first).flatMap((line, i) => {
    const fields = line.split("\t");
    if (fields.length < header.length) {
      if (options.skipShort) return [];
      throw new EspalierError(
        "invalid-file",
        `${path}: line ${i + first + 1}: expected ${header.length} fields, got ${fields.length}`,
        { path, line: i + first + 1 },
      );
    }
    return [Object.fromEntries(header.map((name, column) => [name, fields[column]]))];
  });
}

function parseJsonLines(path: string, lines: readonly string[]): Row[] {
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    try {
      const row: unknown = parseJson(line);
      if (typeof row === "object" && row !== null && !Array.isArray(row)) return [row as Row];
    } catch {
      // Said below.
    }
    throw new EspalierError(
      "invalid-file",
      `${path}: line ${i + 1}: expected a JSON object, got ${line.slice(0, 60)}`,
      { path, line: i + 1 },
    );
  });
}
