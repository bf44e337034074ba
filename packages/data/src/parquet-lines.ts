/** @file Parquet as lines of JSON. */
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";

const MOST_ROWS = 10_000_000;
// Lines are handed on in pieces of about so many characters.
const PIECE = 2 ** 16;

/**
 * The rows of a Parquet file, each on a line; several lines at once. What JSON has no form for is a
 * number where it is one, and null otherwise.
 *
 * A small file can have this take any time and memory, and end the process: only the number of rows is
 * checked.
 */
export async function* parquetLines(path: string): AsyncGenerator<string> {
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  const rows = metadata.row_groups.reduce((total, group) => total + Number(group.num_rows), 0);
  if (!(rows <= MOST_ROWS)) throw new Error(`expected at most ${MOST_ROWS} rows, got ${rows}`);
  let piece = "";
  for (const row of await parquetReadObjects({ file, metadata })) {
    piece += `${JSON.stringify(row, replacer)}\n`;
    if (piece.length < PIECE) continue;
    yield piece;
    piece = "";
  }
  yield piece;
}

function replacer(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  return ArrayBuffer.isView(value) ? null : value;
}
