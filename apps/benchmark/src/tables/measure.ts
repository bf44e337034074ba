/** @file Measures cells, each by a run of its own. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { EspalierError, throwIfAborted } from "@espalier/base";
import {
  drawSamples,
  type Model,
  type ModelFamily,
  Random,
  type Samples,
  sizeOfModel,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import {
  loadSource,
  type PipelineEvent,
  type PruneResult,
  prune,
  type Task,
  type Timing,
  trainModel,
  undisturbed,
} from "@espalier/pipeline";
import { type Cell, type CellInputs, cellsOf, hashOf } from "./cells.ts";
import { hapFlops } from "./hap-flops.ts";
import { type CellResult, readResult, resultPath, writeResult } from "./results.ts";
import { type Measured, readMeasured } from "./rows.ts";
import type { Preset, PresetName, Table } from "./table.ts";

export interface Bench {
  readonly families: readonly ModelFamily[];
  readonly executor: Executor;
  readonly timing: Timing;
  /** Where files of trained models are looked for. */
  readonly models: readonly string[];
  /** Where run directories go. */
  readonly runs: string;
  /** Where results go. */
  readonly results: string;
  /** Only cells whose names it matches are measured; default: all. */
  readonly cells?: Pick<RegExp, "test"> | undefined;
  readonly signal?: AbortSignal | undefined;
  openTask(data: string): Promise<Task>;
  log(line: string): void;
  onEvent?(event: PipelineEvent): void;
}

/** A task of which only some samples are taken, the same for all cells. */
export function limit(task: Task, { train, test }: Preset["images"]): Task {
  const some = (all: Samples, count: number | null, name: string) =>
    count === null || count >= all.count
      ? all
      : drawSamples(all, count, new Random(0).stream("benchmark", name));
  const least = (most: number, count: number | null) => Math.min(most, count ?? most);
  return {
    ...task,
    counts: {
      train: least(task.counts.train, train),
      test: least(task.counts.test, test),
    },
    train: (model) => some(task.train(model), train, "train"),
    test: (model) => some(task.test(model), test, "test"),
  };
}

/** `source` with the path of its file, where that is in one of the directories. */
export function locate(source: string, { models }: Bench): string {
  const colon = source.indexOf(":") + 1;
  const [prefix, file] = [source.slice(0, colon), source.slice(colon)];
  const found = models
    .map((directory) => join(directory, file.slice(file.lastIndexOf("/") + 1)))
    .find((path) => existsSync(path));
  if (found !== undefined) return prefix + found;
  if (prefix === "" || existsSync(file)) return source;
  throw new EspalierError(
    "missing-file",
    `${file}: expected it in ${models.join(" or ")}; see --models`,
    { file },
  );
}

/** The samples that the dense model of a cell is trained and judged on. */
function imagesOfDense({ train, test, dense = train }: Preset["images"]): Preset["images"] {
  return { train: dense, test };
}

/** What the dense model of a cell follows from: its source alone, unless it is trained first. */
export function denseInputs({ source, training, data, images }: CellInputs): object {
  if (training === undefined) return { source };
  return { source, training, data, images: imagesOfDense(images) };
}

/** The dense model that a cell prunes, trained first if it has to be. */
export async function prepare(
  { table, inputs }: Pick<Cell, "table" | "inputs">,
  task: Task,
  bench: Bench,
): Promise<string> {
  const { source, training, data, images } = inputs;
  const start = locate(source, bench);
  if (training === undefined) return start;
  const { families, executor, signal, log } = bench;
  const directory = join(bench.runs, table, `dense-${hashOf(denseInputs(inputs))}`);
  const { evaluation } = await trainModel(
    {
      ...{ source: start, settings: training, seed: 0, batchSize: 64, directory },
      ...{ resume: true, overwrite: false },
    },
    {
      ...{ families, executor, signal, onEvent: (event) => bench.onEvent?.(event) },
      task: limit(task, imagesOfDense(images)),
    },
  );
  log(`dense model on ${data}: ${(100 * evaluation.accuracy).toFixed(2)} %`);
  return directory;
}

/**
 * Measures one cell, or finishes what an earlier call has begun.
 *
 * @throws EspalierError `mismatched-model` for another model than the table's.
 */
async function measureCell(table: Table, cell: Cell, all: Task, bench: Bench): Promise<CellResult> {
  const { families, executor, signal } = bench;
  const { inputs } = cell;
  const path = await prepare(cell, all, bench);
  const task = { ...limit(all, inputs.images), spec: cell.data };
  const source = await loadSource(path, families, { signal });
  if (inputs.sha256 !== undefined && !source.sha256.startsWith(inputs.sha256)) {
    throw new EspalierError(
      "mismatched-model",
      `${source.path}: expected a file whose SHA-256 begins ${inputs.sha256}, got ${source.sha256}`,
      { path: source.path, expected: inputs.sha256, actual: source.sha256 },
    );
  }
  const timing = cell.seed === table.presets[cell.preset].seeds[0] ? bench.timing : undefined;
  const directory = join(bench.runs, cell.table, cell.name);
  // Whoever removes a result wants it measured anew, not read from the run that it came from.
  const isFinished = existsSync(join(directory, timing ? "latency.json" : "sizes.json"));
  const run = await prune(
    {
      // Names instead of paths, so that a run goes on wherever its files are now.
      ...{ source, sourceName: inputs.training ? basename(path) : inputs.source },
      ...{ settings: inputs.settings, timing, directory },
      ...{ resume: !isFinished, overwrite: isFinished },
    },
    { families, executor, task, signal, onEvent: (event) => bench.onEvent?.(event) },
  );
  const { model: pruned } = await loadSource(run.directory, families);
  const sizes = { dense: sized(source.model, table), pruned: sized(pruned, table) };
  return summarize(run, task, await all.digest(), sizes, bench.timing.machine);
}

function sized(model: Model, table: Table): CellResult["dense"] {
  const { parameters, macs } = sizeOfModel(model);
  return {
    parameters,
    macs,
    hapFlops: table.hapFlops === null ? null : hapFlops(model, table.hapFlops),
  };
}

function summarize(
  { evaluation, history, plan, latency }: PruneResult,
  { counts, verified }: Task,
  digest: string,
  { dense, pruned }: Pick<CellResult, "dense" | "pruned">,
  machine: CellResult["machine"],
): CellResult {
  const judged = history.flatMap(({ testAccuracy }) => testAccuracy ?? []);
  const groups = Object.entries(plan.groups).map(([name, { components, prune }]) => ({
    ...{ name, before: components, after: components - prune.length },
  }));
  return {
    data: { ...counts, digest, verified },
    accuracy: {
      dense: evaluation.dense.accuracy,
      pruned: evaluation.pruned.accuracy,
      tuned: evaluation.tuned.accuracy,
      bestOnTest: judged.length === 0 ? null : Math.max(...judged),
    },
    epochs: history.length,
    dense,
    pruned,
    components: {
      before: plan.before.components,
      after: plan.after.components,
      implants: plan.after.implants,
      groups,
    },
    machine: latency?.machine ?? machine,
    latency: Object.fromEntries(
      Object.entries(latency?.batches ?? {}).map(([batch, times]) => [
        batch,
        { dense: undisturbed(times.dense), pruned: undisturbed(times.pruned) },
      ]),
    ),
  };
}

/** @throws EspalierError `invalid-argument` if a cell of the same data was measured on other samples. */
async function expectSameData(
  { data, inputs }: Cell,
  task: Task,
  measured: readonly Measured[],
): Promise<void> {
  const digest = await task.digest();
  const { counts } = limit(task, inputs.images);
  for (const { cell, result } of measured) {
    const before = result.data;
    const isSame =
      before.digest === undefined
        ? before.train === counts.train && before.test === counts.test
        : before.digest === digest;
    if (cell.data !== data || isSame) continue;
    throw new EspalierError(
      "invalid-argument",
      `${data}: expected the data that ${cell.name} was measured on, got other data, of ${task.counts.train} and ${task.counts.test} samples; to measure all on these, remove the results of ${cell.table} on ${data}`,
      { data, cell: cell.name },
    );
  }
}

/** Measures what cells of a preset have no result yet, each after the other. */
export async function measureTable(
  table: Table,
  preset: PresetName,
  bench: Bench,
  onCell: () => Promise<void> = async () => {},
): Promise<void> {
  const cells = cellsOf(table, preset).filter(({ name }) => bench.cells?.test(name) ?? true);
  const before = await readMeasured(bench.results, table, preset);
  const tasks = new Map<string, Task>();
  for (const [i, cell] of cells.entries()) {
    const path = resultPath(bench.results, cell);
    const place = `${table.name}, cell ${i + 1} of ${cells.length}: ${cell.name}`;
    if ((await readResult(path)) !== undefined) {
      bench.log(`${place}: measured before`);
      continue;
    }
    throwIfAborted(bench.signal);
    bench.log(place);
    const task = tasks.get(cell.data) ?? (await bench.openTask(cell.data));
    tasks.set(cell.data, task);
    await expectSameData(cell, task, before);
    const result = await measureCell(table, cell, task, bench);
    await writeResult(path, cell, result);
    const { dense, pruned, tuned } = result.accuracy;
    const percent = (accuracy: number) => (100 * accuracy).toFixed(2);
    bench.log(`${cell.name}: ${[dense, pruned, tuned].map(percent).join(" -> ")}`);
    await onCell();
  }
}
