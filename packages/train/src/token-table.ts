/** @file Training without the rows of the table of tokens that nothing reads. */
import { EspalierError } from "@espalier/base";
import { longest, type Model, type ModelGraph, type Parameter, type Samples } from "@espalier/core";
import { gather, input, isInput, substitute, topologicalOrder, type Value } from "@espalier/graph";
import { createOptimizer, type OptimizerOptions } from "./optimizer.ts";
import type { StepInputs, TrainedModel, TrainingState } from "./step.ts";

/** What has been trained already. */
export interface ResumedTraining {
  /** Of the whole model. */
  readonly state: TrainingState;
  /** Of the steps that have led there. */
  readonly learningRates: readonly number[];
}

/** What a training step computes with, and how that stands for all of the model. */
export interface TokenTable {
  readonly model: TrainedModel;
  /** What `model` takes, of what the whole model takes. */
  feeds(feeds: StepInputs["feeds"]): StepInputs["feeds"];
  /** The part of a state of the whole model that `model` has. */
  narrow(state: TrainingState): TrainingState;
  /** The state of the whole model, after the steps that `advance` was told of and those before. */
  widen(state: TrainingState): TrainingState;
  advance(learningRate: number): void;
}

// What `TextInput` calls the tokens, and what `model` takes instead of them.
const TOKENS = "input_ids";
const ROWS = "rows of tokens";

/**
 * `model` with the rows of its table of tokens that `samples` ask for. Gradients of the others are zero
 * at every step, so that they need not be computed: of BERT's 30,522 words the 67,349 sentences of SST-2
 * have 11,573, and AdamW goes over a table and its moments eleven times a step. `model` stays whole if
 * samples do not name their tokens, if the table is used otherwise, and if an optimiser changes what
 * has no gradient by more than a factor.
 *
 * @param resumed Where training goes on. Rows that still move by it, or have moved, are kept.
 */
export function narrowTokenTable(
  model: Model,
  samples: Samples,
  options: OptimizerOptions,
  resumed: ResumedTraining | undefined,
): TokenTable {
  const optimizer = createOptimizer(options);
  const tokens = samples.tokens?.(Uint32Array.from({ length: samples.count }, (_, i) => i));
  const name = tokens && tableIn(model.build(1, "training", longest(samples)));
  const factorOf =
    name === undefined ? undefined : optimizer.idle(model.parameters.get(name)!.kind);
  if (tokens === undefined || name === undefined || factorOf === undefined)
    return wholeTable(model);

  const table = model.parameters.get(name)!;
  const [count, ...rest] = table.shape;
  const width = rest.reduce((a, b) => a * b, 1);
  const states = optimizer.state.map((state) => `${name}/${state}`);
  const isUsed = new Uint8Array(count);
  for (const token of tokens) isUsed[token] = 1;
  const past = (resumed?.learningRates ?? []).reduce((all, rate) => all * factorOf(rate), 1);
  if (resumed !== undefined) {
    const { state } = resumed;
    const mark = (each: string, isIdle: (value: number, i: number) => boolean) =>
      state.get(each)?.forEach((value, i) => {
        if (!isIdle(value, i)) isUsed[Math.floor(i / width)] = 1;
      });
    mark(name, (value, i) => value === Math.fround(table.data[i] * past));
    for (const each of states) mark(each, (value) => value === 0);
  }
  const rows = Uint32Array.from(isUsed.keys()).filter((row) => isUsed[row] === 1);
  if (rows.length === count) return wholeTable(model);

  const rowOf = new Int32Array(count).fill(-1);
  rows.forEach((row, i) => {
    rowOf[row] = i;
  });
  const take = (each: string, whole: Float32Array | undefined) => {
    if (whole?.length !== table.data.length) {
      throw new EspalierError(
        "invalid-argument",
        `training: ${each}: expected ${table.data.length} numbers in the state, got ${whole?.length ?? "none"}`,
      );
    }
    const taken = new Float32Array(rows.length * width);
    rows.forEach((row, i) => {
      taken.set(whole.subarray(row * width, (row + 1) * width), i * width);
    });
    return taken;
  };
  const put = (part: Float32Array, whole: Float32Array) => {
    rows.forEach((row, i) => {
      whole.set(part.subarray(i * width, (i + 1) * width), row * width);
    });
    return whole;
  };
  const small: Parameter = {
    ...table,
    shape: [rows.length, ...rest],
    data: take(name, table.data),
  };
  let factor = past;
  return {
    model: {
      family: model.family,
      objective: model.objective,
      parameters: new Map(model.parameters).set(name, small),
      build: (...size) => withTable(model.build(...size), name, small),
    },
    feeds: (feeds) => ({ ...feeds, [ROWS]: rowsOf(feeds[TOKENS] as BigInt64Array, rowOf) }),
    narrow: (state) => {
      const narrowed = new Map(state);
      for (const each of [name, ...states]) narrowed.set(each, take(each, state.get(each)));
      return narrowed;
    },
    widen: (state) => {
      const widened = new Map(state);
      // Of the model in which all began, so that it is the same however often a training was resumed.
      const idle = table.data.map((value) => value * factor);
      widened.set(name, put(state.get(name)!, idle));
      for (const each of states) {
        widened.set(each, put(state.get(each)!, new Float32Array(table.data.length)));
      }
      return widened;
    },
    advance: (learningRate) => {
      factor *= factorOf(learningRate);
    },
  };
}

function wholeTable(model: Model): TokenTable {
  return {
    model,
    feeds: (feeds) => feeds,
    narrow: (state) => state,
    widen: (state) => state,
    advance: () => {},
  };
}

/** The parameter that is used for nothing but looking its rows up by tokens, if there is one. */
function tableIn(graph: ModelGraph): string | undefined {
  const order = topologicalOrder(outputsOf(graph));
  return [...graph.parameters].find(([, parameter]) => {
    const users = order.filter(({ inputs }) => inputs.includes(parameter));
    return users.length > 0 && users.every((user) => isLookup(user, parameter));
  })?.[0];
}

function isLookup({ operation, inputs: [x, tokens], attributes }: Value, table: Value): boolean {
  if (operation.name !== "gather" || x !== table || !isInput(tokens)) return false;
  return (attributes as { axis: number }).axis === 0 && tokens.attributes.name === TOKENS;
}

function outputsOf({ logits, hidden = [], statistics }: ModelGraph): Value[] {
  return [logits, ...hidden, ...statistics.values()];
}

/** `graph` with a smaller table, whose rows it is told. */
function withTable(graph: ModelGraph, name: string, { shape }: Parameter): ModelGraph {
  const table = graph.parameters.get(name)!;
  const outputs = outputsOf(graph);
  const small = input(name, shape);
  const lookups = topologicalOrder(outputs).filter((value) => isLookup(value, table));
  const rows = input(ROWS, lookups[0].inputs[1].shape, "int64");
  const changed = substitute(
    outputs,
    new Map(lookups.map((value) => [value, gather(small, rows, 0)])),
  );
  const of = new Map(outputs.map((value, i) => [value, changed[i]]));
  return {
    ...graph,
    inputs: { ...graph.inputs, [ROWS]: rows },
    parameters: new Map(graph.parameters).set(name, small),
    logits: of.get(graph.logits)!,
    hidden: graph.hidden?.map((value) => of.get(value)!),
    statistics: new Map([...graph.statistics].map(([key, value]) => [key, of.get(value)!])),
  };
}

function rowsOf(tokens: BigInt64Array, rowOf: Int32Array): BigInt64Array {
  return tokens.map((token) => {
    const row = rowOf[Number(token)];
    if (row >= 0) return BigInt(row);
    throw new EspalierError(
      "invalid-argument",
      `training: expected tokens that the model has and its samples have named, got ${token}`,
    );
  });
}
