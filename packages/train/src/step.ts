/** @file One training step as one program: forward, backward, optimiser, statistics. */
import { EspalierError } from "@espalier/base";
import {
  type Model,
  type ModelGraph,
  type Objective,
  objectiveOf,
  type Parameter,
} from "@espalier/core";
import {
  add,
  type DeviceTensor,
  divide,
  type Executor,
  type Feed,
  float32Data,
  gradient,
  input,
  isDeviceTensor,
  logSoftmax,
  mean,
  minimum,
  multiply,
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
  /** Share of the loss that asks for the teacher's distribution. */
  readonly weight: number;
  /**
   * Share that asks for the outputs of the teacher's layers, one by one: their mean squared difference
   * (Jiao et al. 2020, arXiv 1909.10351, equation 8). What is left of the loss asks for the labels.
   */
  readonly hiddenWeight: number;
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

/**
 * All that a step changes. Keys: parameters by name, `NAME/STATE` of the optimiser, and the scale of
 * the last gradients where these are clipped.
 */
export type TrainingState = ReadonlyMap<string, Float32Array>;

/** The same where it was computed. */
export type DeviceState = ReadonlyMap<string, DeviceTensor>;

/** A state in memory, copied from the device if it lies there. */
export async function readState(state: TrainingState | DeviceState): Promise<TrainingState> {
  const copied = new Map<string, Float32Array>();
  for (const [name, tensor] of state) {
    const near = isDeviceTensor(tensor) ? await tensor.read() : tensor;
    copied.set(name, near as Float32Array);
  }
  return copied;
}

/** Frees what is on a device; states in memory are left as they are. */
export function disposeState(state: TrainingState | DeviceState): void {
  for (const tensor of state.values()) if (isDeviceTensor(tensor)) tensor.dispose();
}

export interface StepInputs {
  /** The inputs of what is trained, by name. */
  readonly feeds: Readonly<Record<string, TensorData>>;
  /** What the model's objective compares the logits with, [batch, classes]. */
  readonly targets: Float32Array;
  /** When distilling: what the teacher makes of the batch. */
  readonly teacher?: TeacherOutputs | undefined;
  readonly learningRate: number;
  /** Counts from 1. */
  readonly step: number;
}

export interface TeacherOutputs {
  /** [batch, classes]. */
  readonly logits: Float32Array;
  /** The outputs of its layers, where these are asked for. */
  readonly hidden?: readonly Float32Array[] | undefined;
}

export interface StepResult {
  /** To be disposed of when it is no longer needed, and before the program is. */
  readonly state: DeviceState;
  /** Mean over the batch. */
  readonly loss: number;
  /** [batch, classes], before the step. */
  readonly logits: Float32Array;
}

/** What a step is compiled of. */
export type TrainedModel = Pick<Model, "family" | "objective" | "parameters" | "build">;

export interface TrainingStep {
  /** The state in which training of `model` begins. */
  initialState(): TrainingState;
  run(state: TrainingState | DeviceState, inputs: StepInputs): Promise<StepResult>;
  dispose(): Promise<void>;
}

/** How far logits are from the teacher's, of each sample: [N]. */
function distanceToTeacher(
  objective: Objective,
  logits: Value,
  teacher: Value,
  temperature: number,
): Value {
  if (objective.name === "regression") return objective.loss(logits, teacher);
  const soften = (x: Value) => multiply(x, scalar(1 / temperature));
  const wanted = softmax(soften(teacher));
  const difference = subtract(logSoftmax(soften(teacher)), logSoftmax(soften(logits)));
  // Gradients of softened losses are smaller by temperature².
  return multiply(sum(multiply(wanted, difference), [-1]), scalar(temperature ** 2));
}

/** The mean squared difference of what layers put out, over positions that are not filled up: [N]. */
function hiddenDistance({ hidden = [], mask }: ModelGraph, teacher: readonly Value[]): Value {
  const distances = hidden.map((value, i) => {
    const squares = square(subtract(value, teacher[i]));
    const [, ...axes] = value.shape.keys();
    // A layer that puts out the first position alone has nothing that is filled up.
    if (mask === undefined || mask.shape[1] !== value.shape[1]) return mean(squares, axes);
    const [, , ...within] = value.shape.keys();
    return divide(sum(multiply(mean(squares, within), mask), [1]), sum(mask, [1]));
  });
  return multiply(
    distances.reduce((a, b) => add(a, b)),
    scalar(1 / distances.length),
  );
}

const logitsName = "teacher";
const hiddenName = (layer: number) => `teacher hidden ${layer}`;

/** The loss of each sample, [N], whose teacher's outputs are inputs of the program. */
function lossOf(
  model: TrainedModel,
  graph: ModelGraph,
  targets: Value,
  distillation: Distillation | undefined,
): Value {
  const { logits } = graph;
  const objective = objectiveOf(model);
  const fit = objective.loss(logits, targets);
  if (distillation === undefined) return fit;
  const { weight, hiddenWeight, temperature } = distillation;
  const parts = [multiply(fit, scalar(1 - weight - hiddenWeight))];
  if (weight > 0) {
    const teacher = input(logitsName, logits.shape);
    const distance = distanceToTeacher(objective, logits, teacher, temperature);
    parts.push(multiply(distance, scalar(weight)));
  }
  if (hiddenWeight > 0) {
    expectHidden(model, graph);
    const teacher = (graph.hidden ?? []).map(({ shape }, i) => input(hiddenName(i), shape));
    parts.push(multiply(hiddenDistance(graph, teacher), scalar(hiddenWeight)));
  }
  return parts.reduce((a, b) => add(a, b));
}

/**
 * @throws EspalierError `mismatched-model` for a model of a family that does not say what its layers put
 *   out, or says it of none.
 */
export function expectHidden(
  { family }: Pick<Model, "family">,
  { hidden = [] }: Pick<ModelGraph, "hidden">,
): void {
  if (hidden.length > 0) return;
  throw new EspalierError(
    "mismatched-model",
    `distillation from hidden states: expected a model whose layers have outputs of one shape, such as an encoder of texts, got one of the family ${family.name}`,
    { family: family.name },
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

/** What to multiply `gradients` with, so that the norm of all together is no more than `most`. */
function clippingScale(gradients: readonly Value[], most: number): Value {
  // From the last parameter on, as the backward pass reaches them: ONNX Runtime then computes the gradient
  // of each while what it is made of is still at hand.
  const squares = gradients.map((value) => sum(square(value))).reduceRight((a, b) => add(a, b));
  return minimum(divide(scalar(most), add(sqrt(squares), scalar(1e-6))), scalar(1));
}

const SCALE = "gradient scale";
const nextOf = (name: string) => `next ${name}`;

/** The graph of a step, and what makes each part of the state in which training begins. */
function buildStep(model: TrainedModel, options: StepOptions) {
  const { batchSize, statisticsMomentum } = options;
  const graph = model.build(batchSize, "training", options.length);
  const optimizer = createOptimizer(options.optimizer);
  const targets = input("targets", graph.logits.shape);
  const learningRate = input("learning rate", []);
  const corrections = [input("correction 1", []), input("correction 2", [])] as const;
  const loss = mean(lossOf(model, graph, targets, options.distillation));

  const next: Record<string, Value> = {};
  const initial = new Map<string, () => Float32Array>();
  const trained = [...graph.parameters].filter(([name]) => !graph.statistics.has(name));
  const gradients = gradient(
    loss,
    trained.map(([, value]) => value),
  );
  const gradientScale =
    options.clip === undefined
      ? undefined
      : { now: clippingScale(gradients, options.clip), last: input(SCALE, []) };
  if (gradientScale) {
    initial.set(SCALE, () => Float32Array.of(1));
    next[nextOf(SCALE)] = gradientScale.now;
  }
  trained.forEach(([name, value], i) => {
    const { kind, data } = model.parameters.get(name)!;
    initial.set(name, () => data);
    const stateNames = optimizer.state.map((state) => `${name}/${state}`);
    const state = stateNames.map((stateName) => input(stateName, value.shape));
    const update = optimizer.update(value, gradients[i], state, kind, {
      learningRate,
      corrections,
      gradientScale,
    });
    next[nextOf(name)] = update.parameter;
    stateNames.forEach((stateName, k) => {
      initial.set(stateName, () => new Float32Array(data.length));
      next[nextOf(stateName)] = update.state[k];
    });
  });
  for (const [name, observed] of graph.statistics) {
    const before = graph.parameters.get(name)!;
    const { data } = model.parameters.get(name)!;
    initial.set(name, () => data);
    const moved = add(before, multiply(subtract(observed, before), scalar(statisticsMomentum)));
    next[nextOf(name)] = moved;
  }

  return { source: { outputs: { loss, logits: graph.logits }, kept: next }, initial };
}

/** Compiles the training step of `model` for batches of one size and length. */
export async function compileTrainingStep(
  model: TrainedModel,
  executor: Executor,
  options: StepOptions,
): Promise<TrainingStep> {
  const { source, initial } = buildStep(model, options);
  const program = await executor.compile(source);
  const wanted = new Set(program.inputs.map(({ name }) => name));
  const betas = options.optimizer.name === "adamw" ? options.optimizer.betas : undefined;
  return {
    initialState: () => new Map([...initial].map(([name, make]) => [name, make()])),
    run: async (state, inputs) => {
      const given: Record<string, TensorData | undefined> = {
        ...inputs.feeds,
        targets: inputs.targets,
        [logitsName]: inputs.teacher?.logits,
        "learning rate": Float32Array.of(inputs.learningRate),
      };
      inputs.teacher?.hidden?.forEach((values, i) => {
        given[hiddenName(i)] = values;
      });
      betas?.forEach((beta, i) => {
        given[`correction ${i + 1}`] = Float32Array.of(1 / (1 - beta ** inputs.step));
      });
      const feeds: Record<string, Feed> = {};
      for (const name of wanted) {
        const data = state.get(name) ?? given[name];
        if (data !== undefined) feeds[name] = data;
      }
      const results = await program.run(feeds);
      return {
        state: new Map([...initial.keys()].map((name) => [name, results[nextOf(name)]])),
        loss: float32Data(results.loss)[0],
        logits: float32Data(results.logits),
      };
    },
    dispose: () => program.dispose(),
  };
}
