/** @file `espalier bench`: how long a model takes on every device. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { EspalierError, throwIfAborted } from "@espalier/base";
import { loadSource, measureOperations, type OperationTime } from "@espalier/pipeline";
import { formatBytes } from "@espalier/report";
import type { Command } from "commander";
import {
  type CommonOptions,
  createContext,
  exitCodes,
  type ModelOptions,
  openFamilies,
} from "../context.ts";
import { type DeviceState, tryDevices } from "../devices.ts";
import { addCommonOptions, addPluginOption, integer, sourceArgument } from "../options.ts";
import { createProgress } from "../progress.ts";
import { formatTable } from "../table.ts";

interface Options extends Omit<CommonOptions, "device">, ModelOptions {
  readonly device?: string;
  readonly rounds: number;
  readonly length?: number;
  readonly limit: number;
}

/** One device: measured in a process of its own, so that memory is its alone. */
interface DeviceTimes {
  readonly device: string;
  readonly executor: string;
  readonly batchSize: number;
  readonly operations: readonly OperationTime[];
  /** The most that the process had in the machine's memory; a GPU's own memory is not in it. */
  readonly peakBytes: number;
}

interface Failure {
  readonly device: string;
  readonly problem: string;
}

const BATCH = 32;

export function registerBench(program: Command, signal: AbortSignal): void {
  const command = program
    .command("bench")
    .addArgument(sourceArgument)
    .description("Measures a model on every device: forward, derivatives, traces, training.")
    .option("--rounds <n>", "how often each operation is timed", integer(1), 3)
    .option("--length <n>", "tokens of each text (default: 64)", integer(1))
    .option("--limit <seconds>", "of several devices, what each may take", integer(1), 300);
  addCommonOptions(
    addPluginOption(command),
    "separated by commas; default: every device that is there",
  )
    .addHelpText(
      "after",
      "\nExamples:\n  espalier bench runs/half\n  espalier bench runs/half --device tfjs-wasm --batch-size 8 --format json",
    )
    .action(async (source: string, options: Options) => {
      const wanted = options.device?.split(",");
      if (wanted?.length === 1) {
        const measured = await measureHere(source, { ...options, device: wanted[0] }, signal);
        const { print } = measured;
        print(measured.times, () => describe([measured.times], []));
        return;
      }
      const states = await tryDevices();
      expectKnown(wanted ?? [], states);
      const { families } = await openFamilies(options);
      // What is wrong with it is said once, and not by every device.
      await loadSource(source, families, { signal });
      const progress = createProgress(process.stderr, options.bars);
      const times: DeviceTimes[] = [];
      const failures: Failure[] = [];
      for (const { device, problem } of states) {
        if (wanted !== undefined && !wanted.includes(device)) continue;
        if (problem !== undefined) {
          failures.push({ device, problem });
          continue;
        }
        progress.log(`measuring ${device}`);
        const result = await measureApart(device, options.limit, signal);
        if ("problem" in result) failures.push(result);
        else times.push(result);
      }
      progress.end();
      const text =
        options.format === "json"
          ? JSON.stringify({ devices: times, absent: failures }, undefined, 2)
          : describe(times, failures);
      process.stdout.write(`${text}\n`);
      if (times.length === 0) process.exitCode = exitCodes.failed;
    });
}

function expectKnown(wanted: readonly string[], states: readonly DeviceState[]): void {
  const known = states.map(({ device }) => device);
  const unknown = wanted.find((device) => !known.includes(device));
  if (unknown === undefined) return;
  throw new EspalierError(
    "unknown-device",
    `device ${unknown}: expected some of ${known.join(", ")}, separated by commas`,
    { device: unknown, known },
  );
}

async function measureHere(source: string, options: Options & CommonOptions, signal: AbortSignal) {
  const { executor, progress, print } = await createContext(options, signal);
  const { families } = await openFamilies(options);
  const { model } = await loadSource(source, families);
  const batchSize = options.batchSize ?? BATCH;
  const operations = await measureOperations(model, {
    executor,
    batchSize,
    length: options.length,
    rounds: options.rounds,
    signal,
    onProgress: (done, total, label) => progress.update({ label, done, total, unit: "operations" }),
  });
  // Kilobytes.
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  const { device } = options;
  const times: DeviceTimes = { device, executor: executor.name, batchSize, operations, peakBytes };
  return { times, print };
}

/** The same command on one device. */
async function measureApart(
  device: string,
  limit: number,
  signal: AbortSignal,
): Promise<DeviceTimes | Failure> {
  const given = process.argv.slice(2);
  const args = [...process.execArgv, process.argv[1], ...given];
  const own = ["--device", device, "--format", "json", "--no-bars"];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [...args, ...own], {
      signal,
      timeout: 1000 * limit,
      // A backend in one long computation does not listen to anything else.
      killSignal: "SIGKILL",
    });
    return JSON.parse(stdout) as DeviceTimes;
  } catch (error) {
    throwIfAborted(signal);
    const { stderr = "", killed } = error as { stderr?: string; killed?: boolean };
    if (killed) return { device, problem: `not done after ${limit} seconds; see --limit` };
    const line = stderr.split("\n").findLast((text) => text.startsWith("espalier: "));
    return { device, problem: line?.slice("espalier: ".length) ?? "it ended its process" };
  }
}

function describe(times: readonly DeviceTimes[], failures: readonly Failure[]): string {
  const [first] = times;
  const notes = failures.map(({ device, problem }) => `no ${device}: ${problem}`);
  if (first === undefined) return notes.join("\n");
  const format = (seconds: number) =>
    seconds < 1 ? `${(1000 * seconds).toPrecision(3)} ms` : `${Number(seconds.toPrecision(3))} s`;
  const rows = first.operations.map(({ operation, seconds }, i) => [
    operation,
    ...times.map(({ operations }) => {
      const ratio = operations[i].seconds / seconds;
      const time = format(operations[i].seconds);
      return operations === first.operations ? time : `${time} (${ratio.toPrecision(2)}×)`;
    }),
  ]);
  const memory = ["memory", ...times.map(({ peakBytes }) => formatBytes(peakBytes))];
  return [
    `batches of ${first.batchSize}; in parentheses, times relative to ${first.device}`,
    formatTable(["operation", ...times.map(({ device }) => device)], [...rows, memory]),
    ...notes,
  ].join("\n");
}
