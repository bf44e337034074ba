/** @file What cells have measured, as files. */
import { join } from "node:path";
import { writeJsonAtomic } from "@espalier/base";
import * as z from "zod";
import type { Cell } from "./cells.ts";
import { machine, readStored } from "./stored.ts";

const count = z.int().min(0);

const size = z.strictObject({
  parameters: count,
  macs: count,
  /** As HAP counts; null where that is not defined. */
  hapFlops: count.nullable(),
});

const result = z.strictObject({
  /** How many samples were trained and judged on, and whether they are the published data set's. */
  data: z.strictObject({
    train: count,
    test: count,
    /** Of the whole data set; earlier results have none. */
    digest: z.string().optional(),
    verified: z.boolean(),
  }),
  accuracy: z.strictObject({
    dense: z.number(),
    pruned: z.number(),
    /** After the last epoch. */
    tuned: z.number(),
    /** The highest after any epoch, as the paper's code reports it; null where nothing was tuned. */
    bestOnTest: z.number().nullable(),
  }),
  epochs: count,
  dense: size,
  pruned: size,
  /** Of what can be removed, how much was kept and how much of that as implants. */
  components: z.strictObject({
    before: count,
    after: count,
    implants: count,
    /** The same for each group, in the network's order; earlier results have none. */
    groups: z.array(z.strictObject({ name: z.string(), before: count, after: count })).optional(),
  }),
  machine,
  /**
   * For each batch size, milliseconds per batch with little disturbance (first quartiles). Only cells
   * of the first seed are timed: others differ by little in what takes time.
   */
  latency: z.record(z.string(), z.strictObject({ dense: z.number(), pruned: z.number() })),
});

export type CellResult = z.infer<typeof result>;

export function resultPath(directory: string, { table, name }: Cell): string {
  return join(directory, table, `${name}.json`);
}

/** @throws EspalierError `invalid-file` naming the place that does not fit. */
export const readResult = (path: string) => readStored(path, result);

export function writeResult(path: string, { inputs }: Cell, measured: CellResult): Promise<void> {
  return writeJsonAtomic(path, { inputs, result: measured });
}
