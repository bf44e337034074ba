/** @file Accuracy straight after pruning, before any tuning, for every metric. */
import {
  applyDecisions,
  type Metric,
  type Model,
  makePlan,
  measureSensitivity,
  type Sensitivity,
  sizeOfModel,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import { defaultPlan, defaultTemperatures, loadSource, type Task } from "@espalier/pipeline";
import { cifarResNet } from "@espalier/vision";
import { openSubject, type Subject } from "./subject.ts";

export interface UntunedOptions {
  readonly sources: Readonly<Record<string, string>>;
  readonly task: Task;
  readonly executor: Executor;
  /** Cells that an earlier run has left. */
  readonly known: readonly Cell[];
  log(line: string): void;
  /** Called after every cell with all cells so far, since the whole takes an hour. */
  onCells(cells: readonly Cell[]): Promise<void>;
}

/** How much is kept, of what, in how many rounds, ranked how. */
interface Setting {
  readonly name: string;
  readonly of: "components" | "macs";
  readonly coupling: "together" | "apart";
  readonly rankBy: "score" | "score-per-cost";
  readonly keeps: readonly number[];
  readonly rounds: number;
  /** Whether statistics are estimated anew after every round. */
  readonly reestimateBetween: boolean;
}

// The setting of the paper: all rows of all convolutions compete by their scores.
const channels = { of: "components", coupling: "apart", rankBy: "score" } as const;
const macs = { of: "macs", coupling: "together" } as const;
const oneShot = { rounds: 1, reestimateBetween: false } as const;

// The most telling first, since cells are measured in this order.
const settings: readonly Setting[] = [
  { name: "channels", ...channels, ...oneShot, keeps: [0.9, 0.8, 0.7, 0.6, 0.5] },
  {
    name: "channels, 4 rounds, statistics between",
    ...channels,
    keeps: [0.8, 0.6],
    rounds: 4,
    reestimateBetween: true,
  },
  {
    name: "channels, 4 rounds",
    ...channels,
    keeps: [0.8, 0.6],
    rounds: 4,
    reestimateBetween: false,
  },
  {
    name: "MACs by score per cost",
    ...macs,
    rankBy: "score-per-cost",
    ...oneShot,
    keeps: [0.65, 0.5],
  },
  { name: "MACs by score", ...macs, rankBy: "score", ...oneShot, keeps: [0.65, 0.5] },
  {
    name: "MACs by score per cost, 4 rounds, statistics between",
    ...macs,
    rankBy: "score-per-cost",
    keeps: [0.5],
    rounds: 4,
    reestimateBetween: true,
  },
];

export interface ScoredBy {
  readonly metric: Metric;
  readonly temperature: number;
}

export const scoredBy: readonly ScoredBy[] = [
  { metric: "hessian-trace", temperature: 1 },
  { metric: "hessian-trace", temperature: 4 },
  { metric: "removal", temperature: 1 },
  { metric: "removal", temperature: 4 },
  { metric: "gradient", temperature: 1 },
  { metric: "magnitude", temperature: 1 },
  { metric: "random", temperature: 1 },
];

export const isOwnTemperature = ({ metric, temperature }: ScoredBy): boolean =>
  temperature === defaultTemperatures[metric];

export interface Cell {
  readonly model: string;
  readonly setting: string;
  readonly metric: Metric;
  readonly temperature: number;
  readonly keep: number;
  readonly macs: number;
  readonly parameters: number;
  /** On all test images, as pruned. */
  readonly accuracy: number;
  /** With statistics estimated anew on 512 training images. */
  readonly reestimated: number;
}

const BATCH = 64;

/** A network under test. */
interface Contender {
  readonly name: string;
  readonly subject: Subject;
  cut(model: Model, setting: Setting, by: ScoredBy, keep: number, round: number): Promise<Model>;
}

async function openContender(
  name: string,
  source: string,
  { task, executor }: UntunedOptions,
): Promise<Contender> {
  const subject = await openSubject({ source, task, executor, calibration: 512 });
  const { dense, random, scoring } = subject;
  const score = (model: Model, { coupling, rounds }: Setting, by: ScoredBy, round: number) =>
    measureSensitivity(model, {
      executor,
      samples: scoring,
      ...by,
      // Rounds need as many scores as there are rounds, for every cell.
      ...(rounds === 1 ? { estimator: "exact" } : { estimator: "probe", draws: 3 }),
      coupling,
      batchSize: BATCH,
      random: random.stream("round", round),
    });
  // The dense model's scores serve every cell that begins with them.
  const ofDense = new Map<string, Promise<Sensitivity>>();
  const scoreDense = (setting: Setting, by: ScoredBy) => {
    const key = `${setting.coupling}, ${setting.rounds}, ${by.metric}, ${by.temperature}`;
    if (!ofDense.has(key)) ofDense.set(key, score(dense, setting, by, 1));
    return ofDense.get(key)!;
  };
  return {
    name,
    subject,
    cut: async (model, setting, by, keep, round) => {
      const sensitivity = await (round === 1
        ? scoreDense(setting, by)
        : score(model, setting, by, round));
      const { of, rankBy } = setting;
      const plan = makePlan(model, sensitivity, {
        ...defaultPlan({ of, keep }),
        rankBy,
        // Channel by channel, so that metrics are compared rather than rounding.
        wholeBranches: false,
        roundTo: 1,
      });
      return applyDecisions(
        model,
        sensitivity.groups.map(({ group }) => group),
        plan.decisions,
      );
    },
  };
}

/** All that cells follow from, but for the machine and the program. */
export async function untunedInputs(sources: UntunedOptions["sources"]): Promise<object> {
  const files: Record<string, string> = {};
  for (const [name, source] of Object.entries(sources)) {
    files[name] = (await loadSource(source, [cifarResNet])).sha256;
  }
  return { files, settings, plan: defaultPlan({ of: "macs", keep: 0.5 }) };
}

/** Measures every cell that is not known yet; all cells. */
export async function measureUntuned(options: UntunedOptions): Promise<Cell[]> {
  const { known, log } = options;
  const cells: Cell[] = [];
  const contenders: Contender[] = [];
  for (const [name, source] of Object.entries(options.sources)) {
    contenders.push(await openContender(name, source, options));
  }
  const places = contenders.flatMap((contender) =>
    settings.flatMap((setting) =>
      scoredBy
        .filter((by) => setting.rounds === 1 || isOwnTemperature(by))
        .flatMap((by) => setting.keeps.map((keep) => ({ setting, contender, by, keep }))),
    ),
  );
  for (const { setting, contender, by, keep } of places) {
    const { name, subject } = contender;
    const place = { model: name, setting: setting.name, ...by, keep };
    const before = known.find((cell) => isAt(cell, place));
    if (before !== undefined) {
      cells.push(before);
      continue;
    }
    let model = subject.dense;
    for (let round = 1; round <= setting.rounds; round++) {
      model = await contender.cut(model, setting, by, keep ** (1 / setting.rounds), round);
      if (setting.reestimateBetween && round < setting.rounds)
        model = await subject.reestimate(model);
    }
    const accuracy = await subject.judge(model);
    const reestimated = await subject.judge(await subject.reestimate(model));
    cells.push({ ...place, ...sizeOfModel(model), accuracy, reestimated });
    log(
      `${name}, ${setting.name}, ${by.metric}, temperature ${by.temperature}, keep ${keep}: ${(100 * accuracy).toFixed(1)} / ${(100 * reestimated).toFixed(1)}`,
    );
    await options.onCells(cells);
  }
  return cells;
}

type Place = Omit<Cell, "macs" | "parameters" | "accuracy" | "reestimated">;

const isAt = (cell: Cell, place: Place) =>
  Object.entries(place).every(([key, value]) => cell[key as keyof Place] === value);

/** The page, a table per model and setting: accuracy as pruned / re-estimated, in per cent. */
export function untunedMarkdown(cells: readonly Cell[]): string {
  const percent = (share: number) => (100 * share).toFixed(1);
  const lines = [
    "# Accuracy straight after pruning",
    "",
    "Per cent of all 10,000 test images of CIFAR-10, as pruned / with batch-norm statistics estimated anew on 512 training images. Nothing is tuned. Scores on 256 training images: by the estimator `exact` in one shot, by `probe` with 3 draws in rounds. `npm run bench -- untuned`",
  ];
  for (const model of new Set(cells.map((cell) => cell.model))) {
    for (const setting of settings) {
      const own = cells.filter((cell) => cell.model === model && cell.setting === setting.name);
      if (own.length === 0) continue;
      lines.push("", `### ${model}: ${setting.name}`, "");
      lines.push(`| metric | ${setting.keeps.map((keep) => `keep ${keep}`).join(" | ")} |`);
      lines.push(`|---|${setting.keeps.map(() => "---").join("|")}|`);
      for (const { metric, temperature } of scoredBy) {
        const row = setting.keeps.map((keep) => {
          const cell = own.find(
            (each) =>
              each.metric === metric && each.temperature === temperature && each.keep === keep,
          );
          return cell === undefined
            ? ""
            : `${percent(cell.accuracy)} / ${percent(cell.reestimated)}`;
        });
        // Rounds are measured with each metric's own temperature alone.
        if (row.every((entry) => entry === "")) continue;
        const label = temperature === 1 ? metric : `${metric}, T = ${temperature}`;
        lines.push(`| ${label} | ${row.join(" | ")} |`);
      }
    }
  }
  return lines.join("\n");
}
