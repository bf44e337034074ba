/** @file What went wrong, on stderr. */
import { EspalierError } from "@espalier/base";

/** Whether `error` is of an option that `parseArgs` does not know or that lacks its value. */
const isUsage = (error: unknown) =>
  String((error as NodeJS.ErrnoException).code).startsWith("ERR_PARSE_ARGS");

/** Where it is the caller's mistake, its message says all; anything else is ours. */
export function complain(error: unknown): void {
  const expected = EspalierError.isInstance(error) || isUsage(error);
  const text = expected ? (error as Error).message : (error as Error).stack;
  process.stderr.write(`benchmark: ${text}\n`);
}
