/** @file Results as files: what went in, and what came out. */
import { existsSync } from "node:fs";
import { EspalierError, readJson } from "@espalier/base";
import * as z from "zod";

/** The machine that a result was measured on. */
export const machine = z.strictObject({
  processor: z.string(),
  threads: z.int().min(0),
  runtime: z.string(),
});

/**
 * The result in the file at `path`; undefined if there is none.
 *
 * @throws EspalierError `invalid-file` naming the place that does not fit.
 */
export async function readStored<Result>(
  path: string,
  result: z.ZodType<Result>,
): Promise<Result | undefined> {
  if (!existsSync(path)) return undefined;
  const stored = z.strictObject({ inputs: z.unknown(), result });
  const { success, data, error } = stored.safeParse(await readJson(path));
  if (success) return data.result;
  const [{ message, path: at }] = error.issues;
  throw new EspalierError("invalid-file", `${path}: ${at.join(".")}: ${message}`, { path });
}
