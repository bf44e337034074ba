/** @file Accuracy straight after pruning: what estimating statistics and fitting layers each regain. */
import {
  applyDecisions,
  compensate,
  type Metric,
  type Model,
  makePlan,
  measureSensitivity,
  type Sensitivity,
  selectSamples,
} from "@espalier/core";
import type { Executor } from "@espalier/graph";
import {
  defaultPlan,
  defaultPruning,
  defaultTemperatures,
  loadSource,
  type Task,
} from "@espalier/pipeline";
import { cifarResNet } from "@espalier/vision";
import { openSubject } from "./subject.ts";

export interface CompensationOptions {
  readonly source: string;
  readonly task: Task;
  readonly executor: Executor;
  /** The first so many test images. */
  readonly images: number;
  /** Cells that an earlier run has left. */
  readonly known: readonly CompensationCell[];
  log(line: string): void;
  /** Called after every cell with all cells so far, since the whole takes an hour. */
  onCells(cells: readonly CompensationCell[]): Promise<void>;
}

export interface CompensationCell {
  readonly metric: Metric;
  readonly keep: number;
  readonly macsShare: number;
  /** Training images that layers are fitted and statistics estimated on. */
  readonly calibration: number;
  /** Test images that the accuracies are of. */
  readonly images: number;
  readonly none: number;
  /** With statistics estimated anew. */
  readonly statistics: number;
  /** With layers fitted by least squares. */
  readonly fitted: number;
  /** Fitted, then with statistics estimated anew. */
  readonly both: number;
}

type Place = Pick<CompensationCell, "metric" | "keep" | "calibration">;

const METRICS: readonly Metric[] = ["removal", "magnitude", "hessian-trace", "gradient", "random"];
const ENOUGH = defaultPruning({ of: "macs", keep: 0.5 }).calibration;

// The most telling first.
const places: readonly Place[] = [
  ...[0.5, 0.3, 0.7].flatMap((keep) =>
    METRICS.map((metric) => ({ metric, keep, calibration: ENOUGH })),
  ),
  ...[128, 32, 8].map((calibration) => ({ metric: "removal" as const, keep: 0.5, calibration })),
];

/** All that cells follow from, but for the machine and the program. */
export async function compensationInputs(source: string): Promise<object> {
  const { sha256 } = await loadSource(source, [cifarResNet]);
  return {
    ...{ sha256, calibration: ENOUGH, temperatures: defaultTemperatures },
    plan: defaultPlan({ of: "macs", keep: 0.5 }),
  };
}

/** Measures every cell that is not known yet; all cells. */
export async function measureCompensation(
  options: CompensationOptions,
): Promise<CompensationCell[]> {
  const { task, executor, known, log } = options;
  const { batchSize } = defaultPruning({ of: "macs", keep: 0.5 });
  const {
    dense,
    random,
    scoring,
    calibration: all,
    test,
    reestimate,
    judge,
  } = await openSubject({
    ...{ source: options.source, task, executor, images: options.images },
    calibration: ENOUGH,
  });
  const images = test.count;
  const scores = new Map<Metric, Promise<Sensitivity>>();
  const score = (metric: Metric) => {
    const temperature = defaultTemperatures[metric];
    const measured =
      scores.get(metric) ??
      measureSensitivity(dense, {
        executor,
        samples: scoring,
        metric,
        temperature,
        estimator: "exact",
        coupling: "together",
        batchSize,
        random: random.stream("scores"),
      });
    scores.set(metric, measured);
    return measured;
  };

  const cells = known.filter((cell) => cell.images === images);
  for (const place of places) {
    const { metric, keep } = place;
    if (cells.some((cell) => isAt(cell, place))) continue;
    const calibration = selectSamples(all, [...Array(place.calibration).keys()]);
    const reestimated = async (model: Model) => judge(await reestimate(model, calibration));
    const sensitivity = await score(metric);
    const plan = makePlan(dense, sensitivity, defaultPlan({ of: "macs", keep }));
    const groups = sensitivity.groups.map(({ group }) => group);
    const pruned = applyDecisions(dense, groups, plan.decisions);
    const fitted = await compensate(dense, pruned, calibration, {
      executor,
      batchSize,
      random: random.stream("compensation"),
    });
    const cell = {
      ...place,
      macsShare: plan.after.macs / plan.before.macs,
      images,
      none: await judge(pruned),
      statistics: await reestimated(pruned),
      fitted: await judge(fitted),
      both: await reestimated(fitted),
    };
    cells.push(cell);
    log(`${metric}, keep ${keep}, ${calibration.count} images: ${accuraciesOf(cell).join(" / ")}`);
    await options.onCells(cells);
  }
  return cells;
}

const isAt = (cell: CompensationCell, place: Place) =>
  Object.entries(place).every(([key, value]) => cell[key as keyof Place] === value);

const percent = (share: number) => (100 * share).toFixed(1);

function accuraciesOf({ none, statistics, fitted, both }: CompensationCell): string[] {
  return [none, statistics, fitted, both].map(percent);
}

/** The page: accuracies in per cent. */
export function compensationMarkdown(cells: readonly CompensationCell[]): string {
  return [
    "# What compensation regains",
    "",
    "Per cent of test images of CIFAR-10 that ResNet-56 (94.37 %) classifies correctly straight after pruning: as pruned, with batch-norm statistics estimated anew, with layers fitted by least squares, with both, on as many training images as the table says. Nothing is tuned. Default plans: score per cost, whole branches, widths in multiples of 16, no implants. Scores by the estimator `exact` on 256 training images, `removal` at temperature 4. `npm run bench -- compensation`",
    "",
    "| MACs kept | metric | calibration images | nothing | statistics | fitted | both | test images |",
    "|---|---|---|---|---|---|---|---|",
    ...cells.map((cell) => {
      const { metric, macsShare, calibration, images } = cell;
      return `| ${percent(macsShare)} % | ${metric} | ${calibration} | ${accuraciesOf(cell).join(" | ")} | ${images} |`;
    }),
  ].join("\n");
}
