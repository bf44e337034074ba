/** @file One training step as one program: forward, backward, optimiser, statistics. */
import { type Model, type Objective, objectiveOf, type Parameter } from "@espalier/core";
import {
  add,
  divide,
  type Executor,
  float32Data,
  gradient,
  input,
  logSoftmax,
  mean,
  minimum,
  multiply,
  type Program,
  scalar,
  softmax,
  sqrt,
  square,
  subtract,
  sum,
  type TensorData,
  type Value,
} from "@espalier/graph";
import { createOptimizer, type OptimizerOptions } from "./optimizer.ts";

export interface Distillation {
  /** Share of the loss that asks for the teacher's distribution; the rest asks for the labels. */
  readonly weight: number;
  /** Both distributions are softened by it (Hinton et al. 2015, arXiv 1503.02531). */
  readonly temperature: number;
}

export interface StepOptions {
  readonly batchSize: number;
  /** Of sequences: positions of each sample. */
  readonly length?: number | undefined;
  readonly optimizer: OptimizerOptions;
  /** How far statistics move towards those of the batch. */
  readonly statisticsMomentum: number;
  readonly distillation?: Distillation;
  /** What the norm of all gradients together may be at most; default: anything (arXiv 1211.5063). */
  readonly clip?: number | undefined;
}

/** All that a step changes. Keys: parameters by name, and `NAME/STATE` of the optimiser. */
export type TrainingState = ReadonlyMap<string, Float32Array>;

export interface StepInputs {
  /** The model's own inputs, by name. */
  readonly feeds: Readonly<Record<string, TensorData>>;
  /** What the model's objective compares the logits with, [batch, classes]. */
  readonly targets: Float32Array;
  /** The teacher's logits, [batch, classes], when distilling. */
  readonly teacher?: Float32Array;
  readonly learningRate: number;
  /** Counts from 1. */
  readonly step: number;
}

export interface StepResult {
  readonly state: TrainingState;
  /** Mean over the batch. */
  readonly loss: number;
  /** [batch, classes], before the step. */
  readonly logits: Float32Array;
}

export interface TrainingStep {
  /** The state in which training of `model` begins. */
  readonly initialState: TrainingState;
  run(state: TrainingState, inputs: StepInputs): Promise<StepResult>;
  /** The parameters in `state`, as those of a model. */
  parametersOf(state: TrainingState): Map<string, Parameter>;
  dispose(): Promise<void>;
}

/** The loss of each sample, [N]. */
function lossOf(
  objective: Objective,
  logits: Value,
  targets: Value,
  teacher: Value,
  distillation: Distillation | undefined,
): Value {
  const fit = objective.loss(logits, targets);
  if (distillation === undefined) return fit;
  const { weight, temperature } = distillation;
  if (objective.name === "regression") {
    return add(
      multiply(fit, scalar(1 - weight)),
      multiply(objective.loss(logits, teacher), scalar(weight)),
    );
  }
  const soften = (x: Value) => multiply(x, scalar(1 / temperature));
  const wanted = softmax(soften(teacher));
  const difference = subtract(logSoftmax(soften(teacher)), logSoftmax(soften(logits)));
  const divergence = sum(multiply(wanted, difference), [-1]);
  // Gradients of softened losses are smaller by temperature².
  return add(
    multiply(fit, scalar(1 - weight)),
    multiply(divergence, scalar(weight * temperature ** 2)),
  );
}

/** The parameters in `state`, as those of `model`. */
export function parametersIn(model: Model, state: TrainingState): Map<string, Parameter> {
  return new Map(
    [...model.parameters].map(([name, parameter]) => [
      name,
      { ...parameter, data: state.get(name)! },
    ]),
  );
}

/** `gradients`, made shorter together where their norm exceeds `most`. */
function clipped(gradients: readonly Value[], most: number | undefined): readonly Value[] {
  if (most === undefined) return gradients;
  const squares = gradients.map((value) => sum(square(value))).reduce((a, b) => add(a, b));
  const factor = minimum(divide(scalar(most), add(sqrt(squares), scalar(1e-6))), scalar(1));
  return gradients.map((value) => multiply(value, factor));
}

/** Compiles the training step of `model` for batches of one size and length. */
export async function compileTrainingStep(
  model: Model,
  executor: Executor,
  options: StepOptions,
): Promise<TrainingStep> {
  const { batchSize, statisticsMomentum } = options;
  const graph = model.build(batchSize, "training", options.length);
  const optimizer = createOptimizer(options.optimizer);
  const targets = input("targets", graph.logits.shape);
  const teacher = input("teacher", graph.logits.shape);
  const learningRate = input("learning rate", []);
  const corrections = [input("correction 1", []), input("correction 2", [])] as const;
  const loss = mean(
    lossOf(objectiveOf(model), graph.logits, targets, teacher, options.distillation),
  );

  const outputs: Record<string, Value> = { loss, logits: graph.logits };
  const initialState = new Map<string, Float32Array>();
  const trained = [...graph.parameters].filter(([name]) => !graph.statistics.has(name));
  const gradients = clipped(
    gradient(
      loss,
      trained.map(([, value]) => value),
    ),
    options.clip,
  );
  trained.forEach(([name, value], i) => {
    const { kind, data } = model.parameters.get(name)!;
    initialState.set(name, data);
    const stateNames = optimizer.state.map((state) => `${name}/${state}`);
    const state = stateNames.map((stateName) => input(stateName, value.shape));
    const update = optimizer.update(value, gradients[i], state, kind, {
      learningRate,
      corrections,
    });
    outputs[`next ${name}`] = update.parameter;
    stateNames.forEach((stateName, k) => {
      initialState.set(stateName, new Float32Array(data.length));
      outputs[`next ${stateName}`] = update.state[k];
    });
  });
  for (const [name, observed] of graph.statistics) {
    const before = graph.parameters.get(name)!;
    initialState.set(name, model.parameters.get(name)!.data);
    const moved = add(before, multiply(subtract(observed, before), scalar(statisticsMomentum)));
    outputs[`next ${name}`] = moved;
  }

  const program: Program = await executor.compile({ outputs });
  const wanted = new Set(program.inputs.map(({ name }) => name));
  const betas = options.optimizer.name === "adamw" ? options.optimizer.betas : undefined;
  return {
    initialState,
    run: async (state, inputs) => {
      const given: Record<string, TensorData | undefined> = {
        ...inputs.feeds,
        targets: inputs.targets,
        teacher: inputs.teacher,
        "learning rate": Float32Array.of(inputs.learningRate),
      };
      betas?.forEach((beta, i) => {
        given[`correction ${i + 1}`] = Float32Array.of(1 / (1 - beta ** inputs.step));
      });
      const feeds: Record<string, TensorData> = {};
      for (const name of wanted) {
        const data = state.get(name) ?? given[name];
        if (data !== undefined) feeds[name] = data;
      }
      const results = await program.run(feeds);
      const next = new Map<string, Float32Array>();
      for (const name of initialState.keys()) next.set(name, float32Data(results[`next ${name}`]));
      return {
        state: next,
        loss: float32Data(results.loss)[0],
        logits: float32Data(results.logits),
      };
    },
    parametersOf: (state) => parametersIn(model, state),
    dispose: () => program.dispose(),
  };
}
