/** @file Reads Parquet files in a process of its own. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { throwIfAborted } from "@espalier/base";
import { parquetLines } from "./parquet-lines.ts";

/** Of the process that reads, in bytes; 400,000 rows of two sentences, 48 MB, take a sixth of it. */
export const MOST_MEMORY = 2 ** 31;
/** The same rows take four seconds. */
export const LONGEST_MS = 300_000;

/**
 * The rows of a Parquet file as lines of JSON, at most `mostBytes` of them.
 *
 * Lengths and counts stand in many places of such a file, compressed ones among them, and hyparquet
 * believes most: a file of 132 bytes can ask for arrays that V8 ends the process for, which nothing
 * catches. So another process reads it, within limits of time and memory. From TypeScript sources, where
 * there is no built script to start, this process does.
 *
 * @throws Error that says why it cannot be read, EspalierError `aborted`.
 */
export async function readParquet(
  path: string,
  mostBytes: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const script = fileURLToPath(new URL("./parquet-process.js", import.meta.url));
  if (!existsSync(script)) return Buffer.from(await text(parquetLines(path)));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [script, path], {
      encoding: "buffer",
      maxBuffer: mostBytes,
      killSignal: "SIGKILL",
      signal,
    });
    return stdout;
  } catch (error) {
    throwIfAborted(signal);
    const { code, stderr } = error as { code?: unknown; stderr?: Buffer };
    if (code === "ERR_CHILD_PROCESS_STDIO_MAXBUFFER") {
      throw new Error(`expected rows of at most ${mostBytes} bytes as JSON, got more`);
    }
    const said = String(stderr ?? "");
    throw new Error(
      code === 1 && said !== ""
        ? said
        : `expected it to be read with ${MOST_MEMORY / 2 ** 30} GiB of memory, in ${LONGEST_MS / 60_000} minutes`,
      { cause: error },
    );
  }
}
