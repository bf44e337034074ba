/** @file Measures how long the layers of a network take at the widths that pruning may give them. */
import { throwIfAborted } from "@espalier/base";
import {
  applyDecisions,
  bindParameters,
  type ComponentGroup,
  componentGroups,
  type Decision,
  type Model,
  Random,
} from "@espalier/core";
import { exportOnnx, input, type Layer } from "@espalier/graph";
import { Matrix, solve } from "ml-matrix";
import { type TimedModel, type Timing, undisturbed } from "./latency.ts";
import {
  type LatencyTable,
  type LatencyTableOptions,
  partsOf,
  sumOfLayers,
} from "./latency-table.ts";
import { LayerTimer } from "./layer-times.ts";

export interface MeasureOptions extends LatencyTableOptions {
  readonly timing: Timing;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

// Every time is measured so often, at moments far apart.
const PASSES = 2;
// Widths of a layer's inputs and outputs that are measured; others lie between.
const WIDTHS = 4;
// Whole models that the rest is fitted to, besides the dense one.
const MODELS = 5;
const SECONDS_FOR_MODELS = 6;

/**
 * Measures a table for `model`: first which multiples of widths pay, then the layers at such widths
 * in random order, then whole models, dense and pruned at random, which tell what layers by themselves
 * do not.
 */
export async function measureLatencyTable(
  model: Model,
  options: MeasureOptions,
): Promise<LatencyTable> {
  const { batch, timing, executor, signal, onProgress } = options;
  const random = new Random("latency table");
  const groups = componentGroups(model, options.coupling);
  const heaviest = heaviestLayer(partsOf(model, 1).layers);
  const probes = new Map(
    MULTIPLES.flatMap(triplesOf)
      .flat()
      .map((width) => [width, new LayerTimer(heaviest, width, width)]),
  );
  await measureAll([...probes.values()], undefined);
  const multiple = multipleThatPays((width) => probes.get(width)!.milliseconds);

  const whole = implantEverything(model, groups, options.implants);
  const kinds = kindsOf(
    [model, whole].flatMap((each) => partsOf(each, batch).layers),
    multiple,
  );
  const timers = kinds.flatMap(({ timers: rows }) => rows.flat());
  await measureAll(timers, onProgress);

  const layers = Object.fromEntries(
    kinds.map(({ kind, inputs, outputs, timers: rows }) => [
      kind,
      {
        inputs,
        outputs,
        milliseconds: ascending(rows.map((row) => row.map((timer) => timer.milliseconds))),
      },
    ]),
  );
  const models = [
    model,
    ...Array.from({ length: MODELS }, (_, i) =>
      pruneAtRandom(model, groups, multiple, options.implants, random.stream("model", i)),
    ),
  ];
  throwIfAborted(signal);
  const measured = await timing.measure(
    models.map((each) => timedModel(each, batch)),
    SECONDS_FOR_MODELS,
    signal,
  );
  const features = models.map((each) => {
    const parts = partsOf(each, batch);
    return [1, sumOfLayers({ layers, multiple }, parts.layers), parts.megabytes];
  });
  const times = measured.map(undisturbed);
  const [run, perLayer, megabyte] = fitNonNegative(features, times);
  return {
    machine: timing.machine,
    executor,
    batch,
    multiple,
    layers,
    rest: { run, layers: perLayer, megabyte },
    checks: features.map(([one, sum, megabytes], i) => ({
      predicted: run * one + perLayer * sum + megabyte * megabytes,
      measured: times[i],
    })),
    noise: median(timers.map(({ readings }) => spread(readings))),
  };

  async function measureAll(
    list: readonly LayerTimer[],
    report: MeasureOptions["onProgress"],
  ): Promise<void> {
    for (let pass = 0; pass < PASSES; pass++) {
      for (const [done, at] of random.stream("order", pass).permutation(list.length).entries()) {
        throwIfAborted(signal);
        await list[at].measure(timing, signal);
        report?.(pass * list.length + done + 1, PASSES * list.length);
      }
    }
  }
}

/** The exported form of `model`, to be timed. */
export function timedModel(model: Model, batch: number): TimedModel {
  const { inputs } = model.build(batch, "evaluation");
  const onnx = exportOnnx((size) => {
    const { graph, constants } = bindParameters(model, size, "evaluation");
    return { outputs: { logits: graph.logits }, constants };
  });
  return { onnx, inputs };
}

// Of widths; runtimes have blocks of these sizes.
const MULTIPLES = [4, 8, 16];
const LARGEST_MULTIPLE = 32;
// What is saved at odd multiples, as a share of what two multiples less would save: half where
// nothing is filled up, nothing where a layer costs as much as the next even multiple.
const SAVING_THAT_PAYS = 0.2;

/** Widths at which each multiple is tried: an even one, the odd one above and the next even one. */
function triplesOf(multiple: number): [number, number, number][] {
  return [2, 4].map((even) => [even * multiple, (even + 1) * multiple, (even + 2) * multiple]);
}

/** The smallest multiple whose odd multiples are faster than the even ones above them. */
function multipleThatPays(timeOf: (width: number) => number): number {
  const saving = ([low, odd, high]: readonly number[]) =>
    high > low ? Math.min(1, Math.max(0, (high - odd) / (high - low))) : 0;
  const pays = (multiple: number) => {
    const savings = triplesOf(multiple).map((widths) => saving(widths.map(timeOf)));
    return savings.reduce((a, b) => a + b) / savings.length >= SAVING_THAT_PAYS;
  };
  return MULTIPLES.find(pays) ?? LARGEST_MULTIPLE;
}

function heaviestLayer(layers: readonly Layer[]): Layer {
  const macs = ({ shapes, inputs, outputs, apply }: Layer) => {
    const { x, w } = shapes(inputs, outputs);
    const value = apply(input("x", x), input("w", w));
    return value.operation.macs?.(value) ?? 0;
  };
  return layers.reduce((a, b) => (macs(b) > macs(a) ? b : a));
}

/** Each kind of `layers`, to be timed at some of the widths up to the largest. */
function kindsOf(layers: readonly Layer[], multiple: number) {
  const kinds = new Map<string, Layer[]>();
  for (const layer of layers) kinds.set(layer.kind, [...(kinds.get(layer.kind) ?? []), layer]);
  return [...kinds].map(([kind, alike]) => {
    const inputs = widthsUpTo(
      alike.map((layer) => layer.inputs),
      multiple,
    );
    const outputs = widthsUpTo(
      alike.map((layer) => layer.outputs),
      multiple,
    );
    const timers = inputs.map((i) => outputs.map((o) => new LayerTimer(alike[0], i, o)));
    return { kind, inputs, outputs, timers };
  });
}

/** Those of `widths` that are less than a multiple, multiples at even distances, and the largest. */
function widthsUpTo(widths: readonly number[], multiple: number): number[] {
  const largest = Math.max(...widths);
  const multiples = Math.floor(largest / multiple);
  const count = Math.min(multiples, WIDTHS);
  const even = Array.from({ length: count }, (_, i) =>
    count === 1 ? multiple : multiple * Math.round(1 + (i * (multiples - 1)) / (count - 1)),
  );
  const small = widths.filter((width) => width < multiple);
  return [...new Set([...small, ...even, largest])].sort((a, b) => a - b);
}

/**
 * Times as they must be for wider layers never to be faster, which noise could say: halfway between
 * the largest of all narrower layers and the smallest of all wider ones.
 */
function ascending(rows: readonly (readonly number[])[]): number[][] {
  return rows.map((row, i) =>
    row.map((_, j) => {
      const narrower = rows.slice(0, i + 1).flatMap((each) => each.slice(0, j + 1));
      const wider = rows.slice(i).flatMap((each) => each.slice(j));
      return (Math.max(...narrower) + Math.min(...wider)) / 2;
    }),
  );
}

/** `model` with implants wherever they are possible, for the kinds of layers that they are. */
function implantEverything(
  model: Model,
  groups: readonly ComponentGroup[],
  implants: boolean,
): Model {
  if (!implants) return model;
  const decisions = groups
    .filter(({ implantable }) => implantable)
    .map(({ name, count }) => [name, new Array<Decision>(count).fill("implant")] as const);
  return applyDecisions(model, groups, new Map(decisions));
}

/** `model` at random widths that are multiples, some of its branches gone. */
function pruneAtRandom(
  model: Model,
  groups: readonly ComponentGroup[],
  multiple: number,
  implants: boolean,
  random: Random,
): Model {
  const decisions = groups.map(({ name, count, emptiable, implantable }) => {
    const stream = random.stream(name);
    const wanted = Math.ceil((stream.uniform() * count) / multiple) * multiple;
    const kept = emptiable && stream.uniform() < 0.2 ? 0 : Math.min(count, Math.max(1, wanted));
    const implanted = implants && implantable && kept > 0 && stream.uniform() < 0.3 ? multiple : 0;
    return [
      name,
      Array.from({ length: count }, (_, i): Decision => {
        if (i < kept) return "keep";
        return i < kept + implanted ? "implant" : "prune";
      }),
    ] as const;
  });
  return applyDecisions(model, groups, new Map(decisions));
}

/**
 * Least squares of relative errors, without negative coefficients: the best of all sets of features
 * that has none.
 */
function fitNonNegative(
  features: readonly (readonly number[])[],
  times: readonly number[],
): number[] {
  const count = features[0].length;
  const targets = Matrix.ones(times.length, 1);
  let best = { error: Number.POSITIVE_INFINITY, coefficients: new Array<number>(count).fill(0) };
  for (let set = 1; set < 2 ** count; set++) {
    const chosen = Array.from({ length: count }, (_, k) => k).filter((k) => set & (2 ** k));
    const scaled = new Matrix(features.map((row, i) => chosen.map((k) => row[k] / times[i])));
    const solution = solve(scaled, targets, true).to1DArray();
    if (solution.some((coefficient) => !(coefficient >= 0))) continue;
    const residuals = Matrix.sub(scaled.mmul(Matrix.columnVector(solution)), targets);
    const error = residuals.norm();
    if (error >= best.error) continue;
    const coefficients = new Array<number>(count).fill(0);
    for (const [i, k] of chosen.entries()) coefficients[k] = solution[i];
    best = { error, coefficients };
  }
  return best.coefficients;
}

/** By how much readings of one time differ, as a share of their mean. */
function spread(readings: readonly number[]): number {
  const mean = readings.reduce((a, b) => a + b) / readings.length;
  return mean > 0 ? (Math.max(...readings) - Math.min(...readings)) / mean : 0;
}

function median(list: readonly number[]): number {
  return list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
}
