/** @file Budgets of latency: the run's table, plans by it, and what they promise checked by timing. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { EspalierError, readJson, throwIfAborted, writeJsonAtomic } from "@espalier/base";
import {
  applyDecisions,
  type Model,
  makePlan,
  type Plan,
  type PlanOptions,
  type Sensitivity,
} from "@espalier/core";
import { z } from "zod";
import type { OnPipelineEvent } from "./events.ts";
import { type Latency, latencySchema, type Timing, undisturbed } from "./latency.ts";
import {
  decodeLatencyTable,
  LATENCY_TABLE,
  type LatencyTable,
  type LatencyTableOptions,
  predictLatency,
} from "./latency-table.ts";
import { measureLatencyTable, timedModel } from "./measure-latency-table.ts";
import type { RunDirectory } from "./run-directory.ts";

/** What a plan by latency promises; all shares are of the dense model's time. */
export interface LatencyPromise {
  /** Samples at a time. */
  readonly batch: number;
  /** What widths were found to pay in multiples of. */
  readonly multiple: number;
  /** The share asked for. */
  readonly keep: number;
  /** By how much of it the measured share may exceed it, and by how much it should not fall short. */
  readonly tolerance: number;
  /** The plans that were tried, each corrected by what was measured of the one before. */
  readonly attempts: readonly {
    readonly target: number;
    readonly predicted: number;
    readonly measured: number;
  }[];
  /** Which of them is the plan. */
  readonly chosen: number;
}

export interface LatencyTableRequest extends LatencyTableOptions {
  readonly timing: Timing;
  /** Where tables are kept for other runs; none is kept without it. */
  readonly cacheDirectory?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}

// Changed whenever tables are measured or read otherwise.
const TABLE_FORMAT = 1;

/**
 * The table of a run for `model`: the run's own, or that of the user's cache, which is known by all
 * that times depend on, or measured now.
 *
 * @throws EspalierError `invalid-file` if the run's own is malformed or was measured for something else.
 */
export async function openLatencyTable(
  run: RunDirectory,
  model: Model,
  request: LatencyTableRequest,
): Promise<LatencyTable> {
  const { batch, implants, coupling, executor, timing, cacheDirectory, signal, onEvent } = request;
  const { machine } = timing;
  const options = { batch, implants, coupling, executor };
  const wanted = { machine, executor, batch };
  const decode = (value: unknown, path: string) => {
    const table = decodeLatencyTable(value, path);
    const { machine: onMachine, executor: by, batch: of } = table;
    const found = JSON.stringify({ machine: onMachine, executor: by, batch: of });
    if (found === JSON.stringify(wanted)) return table;
    throw new EspalierError(
      "invalid-file",
      `${path}: expected times of ${JSON.stringify(wanted)}, got those of ${found}`,
      { path },
    );
  };
  const key = { format: TABLE_FORMAT, host: hostname(), machine, ...options, model: model.config };
  const cached =
    cacheDirectory === undefined
      ? undefined
      : join(cacheDirectory, "latency", `${digest(key)}.json`);
  let measured: LatencyTable | undefined;
  const known = await run.json(LATENCY_TABLE, async () => {
    const kept = cached === undefined ? undefined : await readKept(cached, decode);
    if (kept !== undefined) {
      onEvent?.({ type: "latency-table", cached: true, ...kept });
      return kept;
    }
    measured = await measureLatencyTable(model, {
      ...options,
      timing,
      signal,
      onProgress: (done, total) =>
        onEvent?.({ type: "progress", stage: "latency-table", unit: "layers", done, total }),
    });
    onEvent?.({ type: "latency-table", cached: false, ...measured });
    return measured;
  });
  // The run has it by now; other runs can measure for themselves.
  if (cached !== undefined && measured !== undefined) {
    await writeJsonAtomic(cached, measured).catch((error: EspalierError) => {
      onEvent?.({ type: "cache-fail", error });
    });
  }
  return decode(known, run.file(LATENCY_TABLE));
}

/** A table of the cache; undefined for one that cannot be read, which is measured anew. */
async function readKept(
  path: string,
  decode: (value: unknown, path: string) => LatencyTable,
): Promise<LatencyTable | undefined> {
  if (!existsSync(path)) return undefined;
  try {
    return decode(await readJson(path, MAXIMUM_TABLE_BYTES), path);
  } catch (error) {
    if (EspalierError.isInstance(error)) return undefined;
    throw error;
  }
}

const MAXIMUM_TABLE_BYTES = 16 * 1024 * 1024;

function digest(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

export interface LatencyPlanRequest {
  readonly dense: Model;
  /** What is planned: the dense model, or what rounds before have left of it. */
  readonly model: Model;
  readonly sensitivity: Sensitivity;
  /** With the share of the dense model's time that is to be kept as the budget. */
  readonly options: PlanOptions;
  readonly table: LatencyTable;
  readonly timing: Timing;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: OnPipelineEvent;
}

const TOLERANCE = 0.05;
const CORRECTIONS = 2;
const SECONDS_PER_CHECK = 6;

/** The plan for a share of the dense model's time, by the table alone. */
export function planByLatency({
  dense,
  model,
  sensitivity,
  options,
  table,
}: Omit<LatencyPlanRequest, "timing">): Plan {
  const latencyOf = (of: Model) => predictLatency(table, of);
  const { keep } = options.budget;
  const share = Math.min(1, (keep * latencyOf(dense)) / latencyOf(model));
  return makePlan(
    model,
    sensitivity,
    { ...options, budget: { of: "latency", keep: share } },
    latencyOf,
  );
}

/**
 * As `planByLatency`, and the planned model is timed beside the dense one. Where the share of time is
 * not what was wanted, the target is corrected by the error, at most twice; the best plan is taken.
 *
 * Each measurement is a file of the run, so that a resumed run comes to the same plan.
 */
export async function keepLatency(
  run: RunDirectory,
  request: LatencyPlanRequest,
): Promise<{ readonly plan: Plan; readonly promise: LatencyPromise }> {
  const { dense, model, sensitivity, options, table, signal, onEvent } = request;
  const { keep } = options.budget;
  const groups = sensitivity.groups.map(({ group }) => group);
  const tried: { plan: Plan; target: number; predicted: number; measured: number }[] = [];
  let target = keep;
  while (tried.length <= CORRECTIONS) {
    throwIfAborted(signal);
    const plan = planWithTarget(request, target, tried.length > 0);
    // What cannot be reached, or would be tried again, is no correction.
    if (plan === undefined) break;
    const planned = applyDecisions(model, groups, plan.decisions);
    const name = `latency/check-${tried.length + 1}.json`;
    const { dense: whole, pruned } = await checkLatency(run, name, request, planned);
    const predicted = predictLatency(table, planned) / predictLatency(table, dense);
    const measured = undisturbed(pruned) / undisturbed(whole);
    tried.push({ plan, target, predicted, measured });
    const accepted = Math.abs(measured / keep - 1) <= TOLERANCE;
    onEvent?.({ type: "latency-check", keep, target, predicted, measured, accepted });
    const corrected = Math.min(1, (target * keep) / measured);
    if (accepted || corrected === target) break;
    target = corrected;
  }
  const chosen = tried.indexOf(tried.reduce((a, b) => (isBetter(b, a, keep) ? b : a)));
  const attempts = tried.map(({ plan: _, ...attempt }) => attempt);
  const { batch, multiple } = table;
  const promise = { batch, multiple, keep, tolerance: TOLERANCE, attempts, chosen };
  return { plan: tried[chosen].plan, promise };
}

function planWithTarget(
  request: LatencyPlanRequest,
  target: number,
  correction: boolean,
): Plan | undefined {
  const { options } = request;
  const budget = { ...options.budget, keep: target };
  try {
    return planByLatency({ ...request, options: { ...options, budget } });
  } catch (error) {
    if (correction && EspalierError.isInstance(error, "unreachable-budget")) return undefined;
    throw error;
  }
}

type Attempt = LatencyPromise["attempts"][number];

/** A kept promise is better than a broken one, then what is closest to it. */
function isBetter(a: Attempt, b: Attempt, keep: number): boolean {
  const kept = ({ measured }: Attempt) => measured <= keep * (1 + TOLERANCE);
  if (kept(a) !== kept(b)) return kept(a);
  return Math.abs(a.measured - keep) < Math.abs(b.measured - keep);
}

const checkSchema = z.strictObject({
  /** Digest of the configuration of what was timed. */
  model: z.string(),
  dense: latencySchema,
  pruned: latencySchema,
});

/** Times a planned model beside the dense one, unless the run has that measurement already. */
async function checkLatency(
  run: RunDirectory,
  name: string,
  { dense, table, timing, signal }: LatencyPlanRequest,
  planned: Model,
): Promise<{ readonly dense: Latency; readonly pruned: Latency }> {
  const model = digest(planned.config);
  const measure = async () => {
    const models = [dense, planned].map((each) => timedModel(each, table.batch));
    const [whole, pruned] = await timing.measure(models, SECONDS_PER_CHECK, signal);
    return { model, dense: whole, pruned };
  };
  const path = run.file(name);
  const decode = (value: unknown) => {
    const { success, data, error } = checkSchema.safeParse(value);
    if (success) return data;
    const [{ path: keys, message }] = error.issues;
    throw new EspalierError("invalid-file", `${path}: ${keys.join(".")}: ${message}`, { path });
  };
  const known = decode(await run.json(name, measure));
  if (known.model === model) return known;
  // Of another plan: the table or the scores have been edited since.
  await run.discard(name);
  return decode(await run.json(name, measure));
}

/** How a promise turned out for the finished model. */
export interface LatencyOutcome {
  readonly batch: number;
  readonly keep: number;
  readonly predicted: number;
  /** Undefined until the finished model has been timed. */
  readonly measured?: number | undefined;
  readonly tolerance: number;
  readonly corrections: number;
  /** Whether the measured share is within the tolerance or below. */
  readonly kept?: boolean | undefined;
}

/** @param times Of the finished models, by batch sizes. */
export function latencyOutcome(
  { batch, keep, tolerance, attempts, chosen }: LatencyPromise,
  times: Readonly<Record<string, { readonly dense: Latency; readonly pruned: Latency }>> = {},
): LatencyOutcome {
  const timed = times[batch];
  const measured = timed && undisturbed(timed.pruned) / undisturbed(timed.dense);
  return {
    ...{ batch, keep, tolerance, measured },
    predicted: attempts[chosen].predicted,
    corrections: attempts.length - 1,
    kept: measured === undefined ? undefined : measured <= keep * (1 + tolerance),
  };
}
