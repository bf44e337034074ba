/** @file Programs that are compared, each in a process of its own, so that time and memory are its own. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { EspalierError } from "@espalier/base";
import * as z from "zod";
import { peerEnvironment } from "../side-by-side.ts";

/** A script beside this one, or one of benchmarks/peers, which Python runs. */
export interface Program {
  readonly label: string;
  readonly ours: boolean;
  readonly script: string;
}

/** What a program needs that is not installed: a Python package, or Python itself. */
export interface Missing {
  readonly missing: string;
}

const missing = z.strictObject({ missing: z.string() });

/**
 * What `program` prints.
 *
 * @throws EspalierError `invalid-file` if it fails.
 */
export function runProgram<Printed>(
  { label, ours, script }: Program,
  args: readonly string[],
  python: string,
  printed: z.ZodType<Printed>,
): Printed | Missing {
  const path = fileURLToPath(
    new URL(ours ? script : `../../../../benchmarks/peers/${script}`, import.meta.url),
  );
  const [command, options] = ours ? [process.execPath, process.execArgv] : [python, []];
  const { stdout, status, error } = spawnSync(command, [...options, path, ...args], {
    encoding: "utf8",
    env: ours ? process.env : peerEnvironment(),
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 26,
  });
  // Without Python all that needs it is left out.
  if (!ours && error !== undefined) return { missing: python };
  if (status !== 0) {
    throw new EspalierError("invalid-file", `${label}: its process ended with code ${status}`);
  }
  return z.union([missing, printed]).parse(JSON.parse(stdout));
}
