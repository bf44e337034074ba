/** @file Programs that are compared, each in a process of its own, so that time and memory are its own. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { EspalierError } from "@espalier/base";
import * as z from "zod";

/** One of ours, beside this file, or one of benchmarks/peers, which Python runs. */
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

/** What others' programs run in: ours without what is set for our own (decision 033). */
function peerEnvironment(): NodeJS.ProcessEnv {
  const ours = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"];
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.includes(name)));
}

/**
 * What `program` prints.
 *
 * @throws EspalierError `invalid-file` if it fails, or prints something else; `aborted` if it was
 *   interrupted.
 */
export function runProgram<Printed>(
  { label, ours, script }: Program,
  args: readonly string[],
  python: string,
  printed: z.ZodType<Printed>,
): Printed | Missing {
  const path = fileURLToPath(
    new URL(ours ? script : `../../../benchmarks/peers/${script}`, import.meta.url),
  );
  const [command, options] = ours ? [process.execPath, process.execArgv] : [python, []];
  const { stdout, status, signal, error } = spawnSync(command, [...options, path, ...args], {
    encoding: "utf8",
    env: ours ? process.env : peerEnvironment(),
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 26,
  });
  // Without Python all that needs it is left out.
  if (!ours && error !== undefined) return { missing: python };
  if (signal === "SIGINT")
    throw new EspalierError("aborted", `${label}: its process was interrupted`);
  if (status !== 0) {
    throw new EspalierError(
      "invalid-file",
      `${label}: expected its process to end well, got ${error?.message ?? signal ?? `code ${status}`}`,
    );
  }
  const { success, data } = z.union([missing, printed]).safeParse(parsed(stdout));
  if (success) return data;
  throw new EspalierError(
    "invalid-file",
    `${label}: expected JSON of another shape, got ${stdout.slice(0, 200)}`,
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What a script of ours prints, which needs nothing that is not there. */
export function runOurs<Printed>(
  script: string,
  args: readonly string[],
  printed: z.ZodType<Printed>,
): Printed {
  const program = { label: script, ours: true, script };
  return runProgram(program, args, process.execPath, printed) as Printed;
}
