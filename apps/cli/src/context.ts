/** @file What all commands share: options, results, progress, and how they end. */
import { totalmem } from "node:os";
import { EspalierError, INTERRUPTED } from "@espalier/base";
import type { ModelFamily } from "@espalier/core";
import type { DatasetEvent } from "@espalier/data";
import type { Executor } from "@espalier/graph";
import { encoders } from "@espalier/nlp";
import {
  expectPlugins,
  loadPlugins,
  openTask,
  type PipelineEvent,
  type Task,
} from "@espalier/pipeline";
import { cifarResNet, preResNet, resNet, vgg } from "@espalier/vision";
import { formatAccuracy } from "./accuracy.ts";
import { openExecutor } from "./devices.ts";
import { createProgress, type Progress } from "./progress.ts";

/** Every model family that the command knows by itself. */
const ownFamilies = [cifarResNet, preResNet, vgg, resNet, ...encoders];

/** Options of commands that read models. */
export interface ModelOptions {
  readonly plugin: readonly string[];
}

/**
 * The families that a command knows with its plugins, and what of them to write down.
 *
 * @param resumed The run that is to be resumed, if any.
 * @throws EspalierError as `loadPlugins` and `expectPlugins`.
 */
export async function openFamilies(
  { plugin }: ModelOptions,
  resumed?: string,
): Promise<{
  readonly families: readonly ModelFamily[];
  readonly plugins: readonly string[] | undefined;
}> {
  if (resumed !== undefined) await expectPlugins(resumed, plugin);
  const families = await loadPlugins(plugin, ownFamilies);
  return { families, plugins: plugin.length > 0 ? plugin : undefined };
}

/** How a command says what it does and has found. */
export interface OutputOptions {
  readonly format: "table" | "json";
  readonly bars: boolean;
}

/** Options of every command that computes. */
export interface CommonOptions extends OutputOptions {
  readonly device: string;
  readonly threads?: number;
  readonly memoryLimit?: number;
  readonly seed: number;
  readonly batchSize?: number;
}

export interface Output {
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** Writes the command's result to standard output. */
  print(result: unknown, table: () => string): void;
  openTask(data: string): Promise<Task>;
  onEvent(event: PipelineEvent): void;
}

export interface Context extends Output {
  readonly executor: Executor;
}

/** Prepares a command that computes. @throws EspalierError `unknown-device`. */
export async function createContext(options: CommonOptions, signal: AbortSignal): Promise<Context> {
  const { device, threads, memoryLimit = totalmem() / 2 } = options;
  return {
    ...createOutput(options, signal),
    executor: await openExecutor({ device, threads, memoryLimit }),
  };
}

/** Prepares a command that computes nothing. */
export function createOutput(options: OutputOptions, signal: AbortSignal): Output {
  const progress = createProgress(process.stderr, options.bars);
  return {
    progress,
    signal,
    print: (result, table) => {
      progress.end();
      const text = options.format === "json" ? JSON.stringify(result, undefined, 2) : table();
      process.stdout.write(`${text}\n`);
    },
    openTask: (data) =>
      openTask(data, { signal, onEvent: (event) => showPipeline(progress, event) }),
    onEvent: (event) => showPipeline(progress, event),
  };
}

function showDataset(progress: Progress, event: DatasetEvent): void {
  switch (event.type) {
    case "download-fail":
      progress.log(`${event.error.message}; trying the next source`);
      return;
    case "image-skip":
      progress.log(`${event.error.message}; left out`);
      return;
    case "cache-use":
      progress.log(`${event.error.message}; using ${event.subject}`);
      return;
    case "cache-discard":
      progress.log(`${event.error.message}; fetching it anew`);
      return;
    default: {
      const label = event.type.replace(/-(start|progress|end)$/, "");
      progress.update({ label, done: event.bytes, total: event.totalBytes, unit: "bytes" });
      if (event.type.endsWith("-end")) progress.end();
    }
  }
}

const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

function showPipeline(progress: Progress, event: PipelineEvent): void {
  switch (event.type) {
    case "progress": {
      const { stage, subject, done, total, unit } = event;
      const label = subject === undefined ? stage : `${stage} ${subject}`;
      progress.update({ label, done, total, unit });
      return;
    }
    case "epoch-end": {
      const { epochs, objective } = event;
      const { epoch, loss, trainAccuracy, validationAccuracy } = event.record;
      const written = (accuracy: number) => formatAccuracy(accuracy, objective);
      const held =
        validationAccuracy === undefined ? "" : `, held out ${written(validationAccuracy)}`;
      progress.log(
        `epoch ${epoch}/${epochs}: loss ${loss.toFixed(4)}, training ${written(trainAccuracy)}${held}`,
      );
      return;
    }
    case "latency-table": {
      const { cached, multiple, noise } = event;
      const origin = cached
        ? "from a run before"
        : `measured, readings differ by ${percent(noise)}`;
      progress.log(`times of layers: ${origin}; widths in multiples of ${multiple} pay here`);
      return;
    }
    case "classes-by-position": {
      const { data, first } = event;
      progress.log(
        `${data}: its classes are taken for the model's in order, ${first.data} for ${first.model} first; none is called the same`,
      );
      return;
    }
    case "cache-fail":
      progress.log(`${event.error.message}; other runs will measure anew`);
      return;
    case "latency-check": {
      const { keep, target, predicted, measured, accepted } = event;
      const found = `predicted ${percent(predicted)} of the dense time, measured ${percent(measured)}`;
      const verdict = accepted ? "close enough to" : "too far from";
      progress.log(`plan for ${percent(target)}: ${found}, ${verdict} ${percent(keep)}`);
      return;
    }
    case "stage-end":
      progress.end();
      if (event.reused) progress.log(`${event.stage}: done before`);
      return;
    case "stage-start":
      return;
    default:
      showDataset(progress, event);
  }
}

/** Exit codes: failed, wrong usage, interrupted. */
export const exitCodes = { failed: 1, usage: 2, interrupted: INTERRUPTED } as const;

/** How a command ends after `error`. */
export function exitCodeOf(error: unknown): number {
  if (EspalierError.isInstance(error, "aborted")) return exitCodes.interrupted;
  const usage =
    EspalierError.isInstance(error, "invalid-argument") ||
    EspalierError.isInstance(error, "unknown-device");
  return usage ? exitCodes.usage : exitCodes.failed;
}
