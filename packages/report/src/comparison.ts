/** @file The dense, the pruned and the tuned model side by side. */
import { criteriaOf } from "./criteria.ts";
import { describeReduction, describeShrinking, describeSpeedup, epochsOf } from "./explain.ts";
import { formatBytes, formatChange, formatCount, formatNumber } from "./format.ts";
import type { Judgement, Reduction, Summary } from "./summary.ts";

/** One number of one model. */
export interface Cell {
  readonly value: number;
  readonly text: string;
  /** Compared with the dense model. */
  readonly change?: string | undefined;
  readonly note?: string;
}

export interface Row {
  readonly name: string;
  /** For data attributes. */
  readonly key: string;
  /** One for each model; where there are two, the second is for pruned and tuned model alike. */
  readonly cells: readonly Cell[];
}

/** All that was measured of the models. */
export function compare(summary: Summary): Row[] {
  const { evaluation, sizes, latency } = summary;
  const rows: Row[] = [];
  if (evaluation !== undefined) {
    const { dense, pruned, tuned } = evaluation;
    const judged = epochsOf(summary) === 0 ? [dense, pruned] : [dense, pruned, tuned];
    const row = (
      name: string,
      key: string,
      measure: (judgement: Judgement) => number,
      format: (value: number) => string,
      change: (before: number, after: number) => string,
    ) =>
      rows.push({
        name,
        key,
        cells: judged.map((judgement, i) => ({
          value: measure(judgement),
          text: format(measure(judgement)),
          change: i === 0 ? undefined : change(measure(dense), measure(judgement)),
        })),
      });
    const criteria = criteriaOf(summary);
    const { name, format, describeChange } = criteria.accuracy;
    row(name, "accuracy", ({ accuracy }) => accuracy, format, describeChange);
    const { unit } = criteria.loss;
    row(
      unit === undefined ? criteria.loss.name : `${criteria.loss.name} (${unit})`,
      "loss",
      ({ loss }) => loss,
      (loss) => loss.toFixed(4),
      (before, after) => formatChange(before, after, 4),
    );
  }
  const reduced = (
    name: string,
    key: string,
    { dense, pruned, ratio }: Reduction,
    format: (n: number) => string,
    describe: (ratio: number) => string,
  ) =>
    rows.push({
      name,
      key,
      cells: [
        { value: dense, text: format(dense) },
        { value: pruned, text: format(pruned), change: describe(ratio) },
      ],
    });
  if (sizes !== undefined) {
    reduced("Parameters", "parameters", sizes.parameters, formatCount, describeReduction);
    reduced("Multiply-accumulates", "macs", sizes.macs, formatCount, describeReduction);
  }
  for (const times of latency?.batches ?? []) {
    const cell = ({ median, quartiles }: typeof times.dense): Cell => ({
      value: quartiles[0],
      text: formatNumber(quartiles[0]),
      note: `median ${formatNumber(median)}`,
    });
    rows.push({
      name: `Milliseconds, batch ${times.batch}`,
      key: `latency-${times.batch}`,
      cells: [cell(times.dense), { ...cell(times.pruned), change: describeSpeedup(times) }],
    });
  }
  if (sizes !== undefined) {
    reduced(
      "model.safetensors",
      "checkpoint",
      sizes.checkpointBytes,
      formatBytes,
      describeShrinking,
    );
    reduced("model.onnx", "onnx", sizes.onnxBytes, formatBytes, describeShrinking);
  }
  return rows;
}
