/** @file Tables of layer times on the machine at hand, and what models take by them. */
import { EspalierError } from "@espalier/base";
import type { Model } from "@espalier/core";
import { bytesOf, isInput, type Layer, topologicalOrder } from "@espalier/graph";
import { z } from "zod";

/** Where a run has its table. */
export const LATENCY_TABLE = "latency/table.json";

const milliseconds = z.number().min(0).max(1e9);
const width = z.int().min(1).max(1e6);

const latencyTableSchema = z.strictObject({
  machine: z.strictObject({ processor: z.string(), threads: z.int().min(1), runtime: z.string() }),
  executor: z.string(),
  batch: z.int().min(1),
  multiple: width,
  layers: z.record(
    z.string(),
    z
      .strictObject({
        inputs: z.array(width).min(1).max(100),
        outputs: z.array(width).min(1).max(100),
        milliseconds: z.array(z.array(milliseconds).max(100)).max(100),
      })
      .refine(
        ({ inputs, outputs, milliseconds: rows }) =>
          rows.length === inputs.length && rows.every(({ length }) => length === outputs.length),
        { error: "expected a row for each of inputs, with a time for each of outputs" },
      )
      .refine(({ inputs, outputs }) => isAscending(inputs) && isAscending(outputs), {
        error: "expected widths in ascending order",
      }),
  ),
  rest: z.strictObject({ run: milliseconds, layers: milliseconds, megabyte: milliseconds }),
  checks: z.array(z.strictObject({ predicted: milliseconds, measured: milliseconds })),
  noise: z.number().min(0),
});

function isAscending(list: readonly number[]): boolean {
  return list.every((each, i) => i === 0 || list[i - 1] < each);
}

/**
 * How long layers take, as `milliseconds[inputs][outputs]` for each kind, and how the time of a model
 * follows: `rest.run` + `rest.layers` · (sum over its layers) + `rest.megabyte` · (megabytes that
 * everything else in its graph makes).
 *
 * `multiple`: of widths, what pays here. `checks`: whole models that `rest` was fitted to. `noise`: by
 * how much readings of one layer differ, as a share, in the median.
 */
export type LatencyTable = Readonly<z.infer<typeof latencyTableSchema>>;

/** What the times in a table depend on. */
export interface LatencyTableOptions {
  /** Samples at a time. */
  readonly batch: number;
  /** Whether layers may become implants. */
  readonly implants: boolean;
  readonly coupling: "together" | "apart";
  /** The name of the executor. */
  readonly executor: string;
}

/** @throws EspalierError `invalid-file` naming the place in the table that is wrong. */
export function decodeLatencyTable(value: unknown, path: string): LatencyTable {
  const { success, data, error } = latencyTableSchema.safeParse(value);
  if (success) return data;
  const [{ path: keys, message }] = error.issues;
  const place = keys.length === 0 ? "" : ` ${keys.join(".")}:`;
  throw new EspalierError("invalid-file", `${path}:${place} ${message}`, { path });
}

/** The parts of a model's graph that its time is made of. */
export interface Parts {
  readonly layers: readonly Layer[];
  /** Megabytes of the results of everything that is no layer. */
  readonly megabytes: number;
}

export function partsOf(model: Model, batch: number): Parts {
  const layers: Layer[] = [];
  let bytes = 0;
  for (const value of topologicalOrder([model.build(batch, "evaluation").logits])) {
    const layer = value.operation.layer?.(value);
    if (layer !== undefined) layers.push(layer);
    else if (!isInput(value)) bytes += bytesOf(value);
  }
  return { layers, megabytes: bytes / 1e6 };
}

/** Milliseconds that `model` takes for a batch, by `table`. */
export function predictLatency(table: LatencyTable, model: Model): number {
  const { layers, megabytes } = partsOf(model, table.batch);
  const { rest } = table;
  return rest.run + rest.layers * sumOfLayers(table, layers) + rest.megabyte * megabytes;
}

type LayerTimes = Pick<LatencyTable, "layers" | "multiple">;

/** Milliseconds of all `layers`, each by itself. */
export function sumOfLayers(table: LayerTimes, layers: readonly Layer[]): number {
  return layers.reduce((sum, layer) => sum + timeOf(table, layer), 0);
}

/** Bilinear between the widths of the table. */
function timeOf(
  { layers, multiple }: Pick<LatencyTable, "layers" | "multiple">,
  layer: Layer,
): number {
  const entry = layers[layer.kind];
  if (entry === undefined) {
    throw new EspalierError(
      "mismatched-model",
      `${LATENCY_TABLE}: expected times of ${layer.kind}, got none`,
    );
  }
  const rows = locate(entry.inputs, layer.inputs, multiple);
  const columns = locate(entry.outputs, layer.outputs, multiple);
  let time = 0;
  for (const [i, share] of rows) {
    for (const [j, part] of columns) time += share * part * entry.milliseconds[i][j];
  }
  return time;
}

/** The places in `widths` between which `wanted` lies, and its shares of them. */
function locate(widths: readonly number[], wanted: number, multiple: number): [number, number][] {
  // Between multiples runtimes take as long as for the next one.
  const width = widths.includes(wanted) ? wanted : Math.ceil(wanted / multiple) * multiple;
  const above = widths.findIndex((each) => each >= width);
  if (above === 0) return [[0, 1]];
  if (above === -1) return [[widths.length - 1, 1]];
  const share = (width - widths[above - 1]) / (widths[above] - widths[above - 1]);
  return [
    [above - 1, 1 - share],
    [above, share],
  ];
}
