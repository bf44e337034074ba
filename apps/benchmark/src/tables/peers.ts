/** @file Traces by others' programs and by ours, side by side in one run. */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { EspalierError, throwIfAborted, writeJsonAtomic } from "@espalier/base";
import { loadSource } from "@espalier/pipeline";
import * as z from "zod";
import { writeArray, writeParameters } from "../side-by-side.ts";
import { hashOf } from "./cells.ts";
import { compareScores } from "./fidelity.ts";
import { type Bench, locate } from "./measure.ts";
import { runProgram } from "./program.ts";
import { machine, readStored } from "./stored.ts";
import type { PresetName } from "./table.ts";

export const PEERS = "peers";

interface Contender {
  readonly label: string;
  /** Whose program it is: an estimator of ours, or a method of benchmarks/peers/traces.py. */
  readonly ours: boolean;
  readonly method: string;
  readonly draws: number;
}

/** What is compared: the exact traces come first, for all others are measured by them. */
const contenders = (draws: number): readonly Contender[] => [
  { label: "Espalier, exact", ours: true, method: "exact", draws: 0 },
  { label: "Espalier, probe", ours: true, method: "probe", draws: 1 },
  { label: "BackPACK, exact Gauss-Newton diagonal", ours: false, method: "backpack", draws: 0 },
  { label: "Espalier, hutchinson", ours: true, method: "hutchinson", draws },
  { label: "HAP's loop", ours: false, method: "hap", draws },
  { label: "PyHessian, whole trace alone", ours: false, method: "pyhessian", draws },
];

const presets: Readonly<Record<PresetName, { images: number; draws: number }>> = {
  smoke: { images: 8, draws: 1 },
  quick: { images: 128, draws: 30 },
  paper: { images: 512, draws: 300 },
};

const model = { name: "ResNet-20", source: "resnet20-cifar10:cifar10_resnet20-4118986f.pt" };

/** What a process prints. */
const printed = z.object({
  torch: z.string().optional(),
  seconds: z.number(),
  peakBytes: z.number(),
  trace: z.number().optional(),
  rows: z.record(z.string(), z.array(z.number())).nullable(),
});

const row = z.strictObject({
  label: z.string(),
  draws: z.int(),
  /** A Python package that is not installed; then nothing else is known. */
  missing: z.string().optional(),
  seconds: z.number().optional(),
  peakBytes: z.number().optional(),
  /** With the rows of Espalier's exact traces; of methods that have rows. */
  rankCorrelation: z.number().optional(),
  relativeError: z.number().optional(),
});
const resultSchema = z.strictObject({
  machine,
  torch: z.string().optional(),
  rows: z.array(row),
});
type PeersResult = z.infer<typeof resultSchema>;

function pathOf(results: string, preset: PresetName): { path: string; inputs: object } {
  const inputs = {
    source: model.source,
    ...presets[preset],
    contenders: contenders(presets[preset].draws),
  };
  return { path: join(results, PEERS, `${preset}-traces-${hashOf(inputs)}.json`), inputs };
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

/** Measures what has no result yet; all of it in one run, since speeds of machines drift. */
export async function measurePeers(
  preset: PresetName,
  bench: Bench,
  python: string,
): Promise<void> {
  const { path, inputs } = pathOf(bench.results, preset);
  if (bench.cells?.test(basename(path, ".json")) === false) return;
  if (existsSync(path)) {
    bench.log(`${PEERS}: measured before`);
    return;
  }
  const { images, draws } = presets[preset];
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
    const rows: z.infer<typeof row>[] = [];
    let reference: Readonly<Record<string, readonly number[]>> | undefined;
    let torch: string | undefined;
    for (const contender of contenders(draws)) {
      throwIfAborted(bench.signal);
      const { label, draws: count } = contender;
      const found = runProgram(
        { ...contender, script: contender.ours ? "./trace-process.js" : "traces.py" },
        [contender.method, directory, String(threads), String(count), source],
        python,
        printed,
      );
      if ("missing" in found) {
        bench.log(`${label}: skipped, ${found.missing} is not installed`);
        rows.push({ label, draws: count, missing: found.missing });
        continue;
      }
      torch ??= found.torch;
      reference ??= found.rows ?? undefined;
      const { seconds, peakBytes } = found;
      bench.log(`${label}: ${seconds.toFixed(2)} s, ${(peakBytes / 1e9).toFixed(2)} GB`);
      if (found.rows === null) {
        rows.push({ label, draws: count, seconds, peakBytes });
        continue;
      }
      const [exact, rest] = alignedRows(reference!, found.rows);
      const { rankCorrelation, relativeError } = compareScores(rest, exact);
      rows.push({ label, draws: count, seconds, peakBytes, rankCorrelation, relativeError });
    }
    const result: PeersResult = {
      machine: bench.timing.machine,
      ...(torch === undefined ? {} : { torch }),
      rows,
    };
    await writeJsonAtomic(path, { inputs, result });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The section of the page. */
export async function peersSection(results: string): Promise<string> {
  const lines = [
    "## Traces by other programs",
    "",
    `The trace of the Hessian's block of every channel of ${model.name}, each program in a process of its own: \`npm run benchmark -- ${PEERS} --python COMMAND\`. Seconds are those of the work, loading left out; memory is the peak of the process. Rank correlation and error of the traces of rows are against Espalier's exact ones. What Python lacks is left out under its name: it takes torch, pyhessian and backpack-for-pytorch (1.7 or later).`,
  ];
  for (const preset of ["paper", "quick"] as const) {
    const { path } = pathOf(results, preset);
    const result = await readStored(path, resultSchema);
    if (result === undefined) continue;
    const { machine, torch, rows } = result;
    const fixed = (value: number | undefined, decimals: number) => value?.toFixed(decimals) ?? "–";
    lines.push(
      "",
      `### \`${preset}\``,
      "",
      `${presets[preset].images} images. ${machine.processor}, ${machine.threads} threads, ${machine.runtime}${torch === undefined ? "" : `, PyTorch ${torch}`}.`,
      "",
      "| program | draws | seconds | peak GB | rank correlation | relative error |",
      "|---|---|---|---|---|---|",
      ...rows.map((each) =>
        each.missing === undefined
          ? `| ${each.label} | ${each.draws || "–"} | ${fixed(each.seconds, 2)} | ${fixed(each.peakBytes! / 1e9, 2)} | ${fixed(each.rankCorrelation, 3)} | ${fixed(each.relativeError, 3)} |`
          : `| ${each.label} | ${each.draws || "–"} | left out: ${each.missing} is not installed | | | |`,
      ),
    );
  }
  if (lines.length === 3) lines.push("", "Not measured yet.");
  return lines.join("\n");
}
