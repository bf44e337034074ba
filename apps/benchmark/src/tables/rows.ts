/** @file What cells have measured, by methods and budgets. */
import { type Cell, cellsOf } from "./cells.ts";
import { type CellResult, readResult, resultPath } from "./results.ts";
import type { PresetName, Table } from "./table.ts";

/** A cell and what it measured. */
export interface Measured {
  readonly cell: Cell;
  readonly result: CellResult;
}

/** Cells of one method under one budget, by their seeds. */
export interface Row {
  readonly cell: Cell;
  readonly results: readonly CellResult[];
}

/** The measured cells of a preset. */
export async function readMeasured(
  directory: string,
  table: Table,
  preset: PresetName,
): Promise<Measured[]> {
  const measured: Measured[] = [];
  for (const cell of cellsOf(table, preset)) {
    const result = await readResult(resultPath(directory, cell));
    if (result !== undefined) measured.push({ cell, result });
  }
  return measured;
}

/** As Map.groupBy, which Node 20 does not have. */
export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

/** The rows of each data set. */
export function rowsOf(measured: readonly Measured[]): Map<string, Row[]> {
  const groups = groupBy(measured, ({ cell: { data, keep, method } }) =>
    [data, keep, method].join("|"),
  );
  const rows = [...groups.values()].map((group) => ({
    cell: group[0].cell,
    results: group.map(({ result }) => result),
  }));
  return groupBy(rows, ({ cell }) => cell.data);
}

export const meanOf = (values: readonly number[]) =>
  values.reduce((sum, v) => sum + v, 0) / values.length;

/** Standard deviation of a sample of at least two; undefined of fewer. */
export function spreadOf(values: readonly number[]): number | undefined {
  if (values.length < 2) return undefined;
  const mean = meanOf(values);
  return Math.sqrt(
    values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1),
  );
}

/** "91.54" or, of several, "91.54 ± 0.12". */
export function withSpread(values: readonly number[], decimals = 2): string {
  const mean = meanOf(values).toFixed(decimals);
  const spread = spreadOf(values);
  return spread === undefined ? mean : `${mean} ± ${spread.toFixed(decimals)}`;
}

export const percent = (shares: readonly number[]) =>
  withSpread(shares.map((share) => 100 * share));

export const inMillions = (count: number) => count / 1e6;

export const millions = (values: readonly number[], decimals = 2) =>
  inMillions(meanOf(values)).toFixed(decimals);

/**
 * The rows of each dense network that some began with, by its accuracy, those of most rows first: a network
 * that is trained first is another one after training on another machine, by the rounding of its processor.
 */
export function byDenseAccuracy(rows: readonly Row[]): Map<number, Row[]> {
  const networks = new Map<number, Row[]>();
  for (const row of rows) {
    for (const accuracy of new Set(of(row, (result) => result.accuracy.dense))) {
      networks.set(accuracy, [...(networks.get(accuracy) ?? []), row]);
    }
  }
  return new Map([...networks].sort(([, a], [, b]) => b.length - a.length));
}

/** What `read` finds in each result of a row. */
export const of = <T>({ results }: Row, read: (result: CellResult) => T): T[] => results.map(read);

/** The most samples at a time that any result has times of. */
export const largestBatch = (rows: readonly Row[]) =>
  Math.max(
    1,
    ...rows.flatMap(({ results }) =>
      results.flatMap(({ latency }) => Object.keys(latency).map(Number)),
    ),
  );

/** How many times faster the pruned model is on `batch` samples at a time; undefined if not timed. */
export function speedUpOf({ latency }: CellResult, batch: number): number | undefined {
  const times = latency[batch];
  return times && times.dense / times.pruned;
}

/** The same of a row, as text. */
export function speedUpText(row: Row, batch: number): string {
  const known = of(row, (result) => speedUpOf(result, batch)).filter((each) => each !== undefined);
  return known.length === 0 ? "–" : withSpread(known);
}

export function budgetOf({ budget, kinds }: Table): string {
  if (budget === "components" && kinds !== undefined) return kinds.map((kind) => `${kind}s`).join();
  return budget === "macs" ? "multiply-accumulates" : budget;
}
