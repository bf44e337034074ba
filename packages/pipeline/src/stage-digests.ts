/** @file What the stages of a run were made of. */
import { existsSync } from "node:fs";
import { EspalierError, readJson } from "@espalier/base";
import * as z from "zod";

/** The SHA-256 of every file that a stage was made of, by the names of stages and files in the run. */
export type StageDigests = Readonly<Record<string, Readonly<Record<string, string>>>>;

const schema = z.record(z.string(), z.record(z.string(), z.string()));

/** None if there is no such file, as in runs of earlier versions. @throws EspalierError `invalid-file`. */
export async function readStageDigests(path: string): Promise<StageDigests> {
  if (!existsSync(path)) return {};
  const { success, data } = schema.safeParse(await readJson(path));
  if (success) return data;
  throw new EspalierError("invalid-file", `${path}: expected the digests of each stage's files`, {
    path,
  });
}

/** The stages that were made of `file`, or of what was made of it, by name. */
export function stagesMadeOf(digests: StageDigests, file: string): string[] {
  const made = new Set<string>();
  const isChanged = (input: string) =>
    input === file || [...made].some((stage) => input === stage || input.startsWith(`${stage}/`));
  for (let known = -1; known < made.size; ) {
    known = made.size;
    for (const [stage, inputs] of Object.entries(digests)) {
      if (Object.keys(inputs).some(isChanged)) made.add(stage);
    }
  }
  return [...made].sort();
}
