/** @file Accuracy before and after tuning, for every metric under one budget. */
import { join } from "node:path";
import type { Executor } from "@espalier/graph";
import {
  defaultPruning,
  loadSource,
  type PruneSettings,
  prune,
  type Task,
} from "@espalier/pipeline";
import { cifarResNet } from "@espalier/vision";
import { isOwnTemperature, type ScoredBy, scoredBy } from "./untuned.ts";

export interface TunedOptions {
  readonly source: string;
  readonly task: Task;
  readonly executor: Executor;
  /** Where the runs go: one that was stopped goes on from there. */
  readonly directory: string;
  readonly epochs: number;
  /** Rows that an earlier run has left. */
  readonly known: readonly TunedRow[];
  log(line: string): void;
  /** Called after every row with all rows so far, since the whole takes hours. */
  onRows(rows: readonly TunedRow[]): Promise<void>;
}

export interface TunedRow {
  readonly label: string;
  readonly epochs: number;
  readonly macsShare: number;
  readonly parametersShare: number;
  readonly dense: number;
  readonly pruned: number;
  readonly tuned: number;
}

export interface TunedResult {
  readonly rows: readonly TunedRow[];
  /** What has changed since, where something has. */
  readonly outdated?: string | undefined;
}

/** All that rows follow from, but for the machine and the program. */
export async function tunedInputs(source: string): Promise<object> {
  const { sha256 } = await loadSource(source, [cifarResNet]);
  return { sha256, variants: variants(1) };
}

/** The runs, the most telling first: every metric with implants, and the default metric without. */
function variants(epochs: number): { label: string; settings: PruneSettings }[] {
  const base = defaultPruning({ of: "macs", keep: 0.5 });
  const isDefault = (by: ScoredBy) => isOwnTemperature(by) && by.metric === base.sensitivity.metric;
  const rankOf = (by: ScoredBy) => Number(isDefault(by)) + Number(isOwnTemperature(by));
  const ranked = [...scoredBy].sort((a, b) => rankOf(b) - rankOf(a));
  const tune = { ...base.tune, epochs };
  const withImplants = { ...base.plan, implant: 0.1 };
  const rows = ranked.map(({ metric, temperature }) => ({
    label: temperature === 1 ? metric : `${metric}, T = ${temperature}`,
    settings: {
      ...base,
      sensitivity: { ...base.sensitivity, metric, temperature },
      plan: withImplants,
      tune,
    },
  }));
  return [
    ...rows,
    { label: "removal, T = 4, no implants", settings: { ...base, tune } },
    {
      label: "removal, T = 4, implants from zero",
      settings: { ...base, plan: withImplants, implantStart: "zero", tune },
    },
    {
      label: "hessian-trace, the paper's ranking",
      settings: {
        ...base,
        sensitivity: {
          ...base.sensitivity,
          metric: "hessian-trace",
          temperature: 1,
          coupling: "apart",
        },
        plan: { ...withImplants, rankBy: "score" },
        tune,
      },
    },
  ];
}

/** Measures every row that is not known yet; all rows. */
export async function measureTuned(options: TunedOptions): Promise<TunedRow[]> {
  const { source: sourceName, task, executor, directory, epochs, known, log } = options;
  const source = await loadSource(sourceName, [cifarResNet]);
  const rows: TunedRow[] = [];
  for (const { label, settings } of variants(epochs)) {
    const earlier = known.find((row) => row.label === label && row.epochs === epochs);
    if (earlier !== undefined) {
      rows.push(earlier);
      continue;
    }
    const result = await prune(
      {
        source,
        sourceName,
        settings,
        directory: join(directory, `${label} ${epochs}`.replace(/[^a-z0-9]+/gi, "-")),
        resume: true,
        overwrite: false,
      },
      {
        families: [cifarResNet],
        task,
        executor,
        onEvent: (event) => {
          if (event.type === "epoch-end") log(`${label}: epoch ${event.record.epoch}`);
        },
      },
    );
    const { dense, pruned, tuned } = result.evaluation;
    const { before, after } = result.plan;
    rows.push({
      label,
      epochs,
      macsShare: after.macs / before.macs,
      parametersShare: after.parameters / before.parameters,
      dense: dense.accuracy,
      pruned: pruned.accuracy,
      tuned: tuned.accuracy,
    });
    log(`${label}: ${(100 * pruned.accuracy).toFixed(2)} -> ${(100 * tuned.accuracy).toFixed(2)}`);
    await options.onRows(rows);
  }
  return rows;
}

export function tunedMarkdown({ rows, outdated }: TunedResult): string {
  const percent = (share: number) => (100 * share).toFixed(2);
  return [
    "# Accuracy before and after tuning",
    "",
    "ResNet-56 (94.37 %), half of the multiply-accumulates kept, a tenth of the channels given up become implants; tuned on 45,000 training images, last epoch, all 10,000 test images. `npm run bench -- tuned`",
    "",
    ...(outdated === undefined ? [] : [outdated, ""]),
    "| metric | MACs kept | parameters kept | straight after pruning | epochs | tuned | change from dense |",
    "|---|---|---|---|---|---|---|",
    ...rows.map(
      ({ label, epochs, macsShare, parametersShare, dense, pruned, tuned }) =>
        `| ${label} | ${percent(macsShare)} % | ${percent(parametersShare)} % | ${percent(pruned)} | ${epochs} | ${percent(tuned)} | ${(100 * (tuned - dense)).toFixed(2)} |`,
    ),
  ].join("\n");
}
