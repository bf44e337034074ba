/** @file Traces by others' programs and by ours, side by side in one run. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EspalierError, throwIfAborted, writeJsonAtomic } from "@espalier/base";
import { loadSource } from "@espalier/pipeline";
import * as z from "zod";
import { type Program, runProgram } from "../program.ts";
import { writeArray, writeParameters } from "../side-by-side.ts";
import { hashOf } from "./cells.ts";
import { compareScores } from "./fidelity.ts";
import { type Bench, locate } from "./measure.ts";
import { machine, readStored } from "./stored.ts";
import type { PresetName } from "./table.ts";

export const PEERS = "peers";

/** What all programs are tried on. */
export const model = { name: "ResNet-20", source: "resnet20-cifar10:cifar10_resnet20-4118986f.pt" };

const presets: Readonly<Record<PresetName, { images: number; draws: number }>> = {
  smoke: { images: 8, draws: 1 },
  quick: { images: 128, draws: 30 },
  paper: { images: 512, draws: 300 },
};

/** All that a measurement follows from, but for the machine and the versions of programs. */
interface TraceInputs {
  readonly source: string;
  readonly images: number;
  /** An estimator of ours, or a method of benchmarks/peers/traces.py. */
  readonly method: string;
  readonly draws: number;
}

interface Contender extends Program {
  readonly inputs: TraceInputs;
  /** Names its result; ends in a hash of `inputs`. */
  readonly name: string;
}

/** What is compared: the exact traces come first, for all others are measured by them. */
function contendersOf(preset: PresetName): readonly [Contender, ...Contender[]] {
  const { images, draws: several } = presets[preset];
  const contender = (label: string, ours: boolean, method: string, draws: number): Contender => {
    const inputs = { source: model.source, images, method, draws };
    return {
      ...{ label, ours, inputs },
      script: ours ? "tables/trace-process.js" : "traces.py",
      name: `${preset}-traces-${ours ? "espalier" : "peer"}-${method}-${hashOf(inputs)}`,
    };
  };
  return [
    contender("Espalier, exact", true, "exact", 0),
    contender("Espalier, probe", true, "probe", 1),
    contender("BackPACK, exact Gauss-Newton diagonal", false, "backpack", 0),
    contender("Espalier, hutchinson", true, "hutchinson", several),
    contender("HAP's loop", false, "hap", several),
    contender("PyHessian, whole trace alone", false, "pyhessian", several),
  ];
}

/** What a process prints. */
const printed = z.object({
  torch: z.string().optional(),
  seconds: z.number(),
  peakBytes: z.number(),
  rows: z.record(z.string(), z.array(z.number())).nullable(),
});

const resultSchema = z.strictObject({
  machine,
  torch: z.string().optional(),
  seconds: z.number(),
  peakBytes: z.number(),
  /** With the rows of Espalier's exact traces; of methods that have rows. */
  rankCorrelation: z.number().optional(),
  relativeError: z.number().optional(),
});
type TraceResult = z.infer<typeof resultSchema>;

/** Where the result of a program is. */
export const pathOf = (results: string, { name }: { readonly name: string }) =>
  join(results, PEERS, `${name}.json`);

/** Those of `contenders` that are wanted and have no result yet. */
export async function unmeasured<Candidate extends Program & { readonly name: string }>(
  contenders: readonly Candidate[],
  { cells, results, log }: Bench,
  result: z.ZodType,
): Promise<Candidate[]> {
  const open: Candidate[] = [];
  for (const contender of contenders) {
    if (!(cells?.test(contender.name) ?? true)) continue;
    const known = await readStored(pathOf(results, contender), result);
    if (known === undefined) open.push(contender);
    else log(`${contender.label}: measured before`);
  }
  return open;
}

/** The rows of all weights that both have, one after the other. */
export function alignedRows(
  reference: Readonly<Record<string, readonly number[]>>,
  other: Readonly<Record<string, readonly number[]>>,
): readonly [Float64Array, Float64Array] {
  const names = Object.keys(reference).filter((name) => Object.hasOwn(other, name));
  const flat = (of: Readonly<Record<string, readonly number[]>>) =>
    Float64Array.from(names.flatMap((name) => of[name]));
  const [a, b] = [flat(reference), flat(other)];
  if (a.length === b.length && a.length > 0) return [a, b];
  throw new EspalierError(
    "mismatched-model",
    `traces of rows: expected as many as ours, ${a.length}, got ${b.length}`,
  );
}

function compareRows(
  exact: Readonly<Record<string, readonly number[]>>,
  other: Readonly<Record<string, readonly number[]>>,
): Pick<TraceResult, "rankCorrelation" | "relativeError"> {
  const [reference, aligned] = alignedRows(exact, other);
  const { rankCorrelation, relativeError } = compareScores(aligned, reference);
  return { rankCorrelation, relativeError };
}

/**
 * Measures the contenders that have no result yet. What needs a Python package that is not installed is
 * left out by name, and is measured when it is there.
 *
 * @param run Runs a program; see `runProgram`.
 */
export async function measurePeers(
  preset: PresetName,
  bench: Bench,
  python: string,
  run: typeof runProgram = runProgram,
): Promise<void> {
  const contenders = contendersOf(preset);
  const open = await unmeasured(contenders, bench, resultSchema);
  if (open.length === 0) return;
  const { images } = presets[preset];
  const source = locate(model.source, bench);
  const { model: network } = await loadSource(source, bench.families);
  const task = await bench.openTask("cifar10");
  const directory = await mkdtemp(join(tmpdir(), "espalier-peers-"));
  try {
    const { feeds, labels } = await task.train(network).batch([...Array(images).keys()]);
    const pixels = feeds.pixel_values as Float32Array;
    await writeArray(directory, "images", [images, 3, 32, 32], pixels);
    await writeArray(directory, "labels", [images], labels);
    await writeParameters(directory, network.parameters);
    const { threads } = bench.timing.machine;
    const measure = (contender: Contender) => {
      throwIfAborted(bench.signal);
      const { method, draws } = contender.inputs;
      const args = [method, directory, String(threads), String(draws), source];
      return run(contender, args, python, printed);
    };
    // Measured again where only others are open, for its rows.
    const [exact] = contenders;
    const reference = measure(exact);
    for (const contender of open) {
      const { label, inputs } = contender;
      const found = contender === exact ? reference : measure(contender);
      if ("missing" in found) {
        bench.log(`${label}: skipped, ${found.missing} is not installed`);
        continue;
      }
      const { rows, ...measured } = found;
      const result: TraceResult = {
        machine: bench.timing.machine,
        ...measured,
        ...(rows === null || "missing" in reference ? {} : compareRows(reference.rows!, rows)),
      };
      await writeJsonAtomic(pathOf(bench.results, contender), { inputs, result });
      const { seconds, peakBytes } = result;
      bench.log(`${label}: ${seconds.toFixed(2)} s, ${(peakBytes / 1e9).toFixed(2)} GB`);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The section of the page. */
export async function peersSection(
  results: string,
  shown: readonly PresetName[] = ["paper", "quick"],
): Promise<string> {
  const lines = [
    "## Traces by other programs",
    "",
    `The trace of the Hessian's block of every channel of ${model.name}, each program in a process of its own: \`npm run benchmark -- ${PEERS} --cells traces --python COMMAND\`. Seconds are those of the work, loading left out; memory is the peak of the process. Rank correlation and error of the traces of rows are against Espalier's exact ones; PyHessian gives one number for all parameters, which is not compared. What Python lacks is left out under its name: it takes torch, pyhessian and backpack-for-pytorch (1.7 or later).`,
  ];
  const start = lines.length;
  for (const preset of shown) {
    const contenders = contendersOf(preset);
    const found = await Promise.all(
      contenders.map((each) => readStored(pathOf(results, each), resultSchema)),
    );
    const known = found.filter((result) => result !== undefined);
    if (known.length === 0) continue;
    const [{ machine }] = known;
    const torch = known.find((result) => result.torch !== undefined)?.torch;
    lines.push(
      "",
      `### \`${preset}\``,
      "",
      `${presets[preset].images} images. ${machine.processor}, ${machine.threads} threads, ${machine.runtime}${torch === undefined ? "" : `, PyTorch ${torch}`}.`,
      "",
      "| program | draws | seconds | peak GB | rank correlation | relative error |",
      "|---|---|---|---|---|---|",
      ...contenders.map((contender, i) => rowOf(contender, found[i])),
    );
  }
  if (lines.length === start) lines.push("", "Not measured yet.");
  return lines.join("\n");
}

function rowOf({ label, inputs: { draws } }: Contender, result: TraceResult | undefined): string {
  if (result === undefined) return `| ${label} | ${draws || "–"} | not measured | | | |`;
  const { seconds, peakBytes, rankCorrelation, relativeError } = result;
  const cells = [
    label,
    draws || "–",
    seconds.toFixed(2),
    (peakBytes / 1e9).toFixed(2),
    rankCorrelation?.toFixed(3) ?? "–",
    relativeError?.toFixed(3) ?? "–",
  ];
  return `| ${cells.join(" | ")} |`;
}
