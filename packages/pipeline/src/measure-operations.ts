/** @file How long the main operations on a model take on an executor. */
import { EspalierError, throwIfAborted } from "@espalier/base";
import {
  bindParameters,
  componentGroups,
  estimate,
  type Model,
  objectiveOf,
  Random,
  type Samples,
} from "@espalier/core";
import {
  cost,
  type Executor,
  gradient,
  input,
  jvp,
  mean,
  type Program,
  sizeOf,
  type TensorData,
  type Value,
} from "@espalier/graph";
import {
  compileTrainingStep,
  type DeviceState,
  disposeState,
  type TrainingState,
} from "@espalier/train";

export interface MeasureOptions {
  readonly executor: Executor;
  /** Samples at a time. */
  readonly batchSize: number;
  /** Of sequences: tokens of each; default: 64, or as many as the model takes. */
  readonly length?: number | undefined;
  /** How often each operation is timed, after one run that is not. */
  readonly rounds: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number, operation: string) => void) | undefined;
}

export interface OperationTime {
  readonly operation: string;
  /** Median over the rounds. */
  readonly seconds: number;
  /** Bytes that its graph needs, as `cost` predicts them; undefined for several programs in turn. */
  readonly predictedBytes?: number | undefined;
}

// More backward passes than these would be measured for hours on a large network.
const MOST_CLASSES = 20;
const LENGTH = 64;

/** Random inputs of `model` for one batch, all tokens attended to. */
function randomFeeds(
  inputs: Readonly<Record<string, Value>>,
  random: Random,
): Record<string, TensorData> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, dtype }]) => {
      const noise = random.stream(name);
      const length = sizeOf(shape);
      return dtype === "int64"
        ? [name, new BigInt64Array(length).fill(name === "attention_mask" ? 1n : 0n)]
        : [name, Float32Array.from({ length }, () => noise.normal())];
    }),
  );
}

/**
 * Times forward pass, gradient, Hessian-vector product, trace and training step on random samples.
 * The trace is the exact one, a backward pass for each class; of more than 20 classes, one probe.
 *
 * @throws EspalierError `invalid-argument` for a model without a task; as the executor.
 */
export async function measureOperations(
  model: Model,
  options: MeasureOptions,
): Promise<OperationTime[]> {
  const { executor, batchSize, rounds, signal, onProgress } = options;
  const classes = model.classes.length;
  if (classes === 0) {
    throw new EspalierError("invalid-argument", "expected a model with a task, got one without");
  }
  const { preprocessing } = model;
  const length =
    preprocessing.kind === "text"
      ? (options.length ?? Math.min(LENGTH, preprocessing.maxLength))
      : undefined;
  const random = new Random("bench");
  const objective = objectiveOf(model);
  const { graph, constants } = bindParameters(model, batchSize, "evaluation", length);
  const feeds = randomFeeds(graph.inputs, random);
  const labels = Array.from({ length: batchSize }, (_, i) => i % classes);
  const targets = objective.targets(labels, classes, batchSize);
  const targetsInput = input("targets", graph.logits.shape);
  const loss = mean(objective.loss(graph.logits, targetsInput));
  const trained = [...graph.parameters].filter(
    ([name]) => model.parameters.get(name)!.kind !== "statistic",
  );
  const parameters = trained.map(([, value]) => value);
  const slopes = gradient(loss, parameters);
  const directions = parameters.map((value, i) => input(`direction.${i}`, value.shape));
  const products = jvp(slopes, new Map(parameters.map((value, i) => [value, directions[i]])));
  const named = (values: readonly Value[]) =>
    Object.fromEntries(values.map((value, i) => [`${i}`, value]));
  const vectors = Object.fromEntries(
    directions.map(({ shape }, i) => {
      const signs = random.stream("direction", i);
      return [`direction.${i}`, Float32Array.from({ length: sizeOf(shape) }, () => signs.sign())];
    }),
  );

  const samples: Samples = {
    count: batchSize,
    ...(length === undefined ? {} : { lengths: new Uint32Array(batchSize).fill(length) }),
    batch: async () => ({ feeds, labels, ...(length === undefined ? {} : { length }) }),
  };
  const groups = componentGroups(model, "together");
  const exact = classes <= MOST_CLASSES;

  const timeProgram = async (outputs: Record<string, Value>, given: Record<string, TensorData>) => {
    const program: Program = await executor.compile({ outputs, constants });
    try {
      return await medianSeconds(() => program.run(given), rounds, signal);
    } finally {
      await program.dispose();
    }
  };
  const work: [string, number | undefined, () => Promise<number>][] = [
    ["forward", cost([graph.logits]).peakBytes, () => timeProgram({ logits: graph.logits }, feeds)],
    [
      "gradient",
      cost([loss, ...slopes]).peakBytes,
      () => timeProgram({ loss, ...named(slopes) }, { ...feeds, targets }),
    ],
    [
      "Hessian-vector product",
      cost(products).peakBytes,
      () => timeProgram(named(products), { ...feeds, ...vectors, targets }),
    ],
    [
      exact ? `exact trace, ${classes} passes` : "trace, 1 probe",
      undefined,
      () =>
        medianSeconds(
          () =>
            estimate(model, groups, {
              executor,
              samples,
              quantity: "trace",
              estimator: exact ? "exact" : "probe",
              draws: 1,
              temperature: 1,
              batchSize,
              random,
              signal,
            }),
          rounds,
          signal,
        ),
    ],
    [
      "training step",
      undefined,
      async () => {
        const step = await compileTrainingStep(model, executor, {
          batchSize,
          length,
          optimizer: { name: "sgd", momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
          statisticsMomentum: 0.1,
        });
        let state: TrainingState | DeviceState = step.initialState();
        const advance = async () => {
          const inputs = { feeds, targets, learningRate: 0.01, step: 1 };
          const next = (await step.run(state, inputs)).state;
          disposeState(state);
          state = next;
        };
        try {
          return await medianSeconds(advance, rounds, signal);
        } finally {
          disposeState(state);
          await step.dispose();
        }
      },
    ],
  ];
  const result: OperationTime[] = [];
  for (const [operation, predictedBytes, measure] of work) {
    onProgress?.(result.length, work.length, operation);
    result.push({ operation, seconds: await measure(), predictedBytes });
  }
  return result;
}

async function medianSeconds(
  run: () => Promise<unknown>,
  rounds: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  await run();
  const seconds: number[] = [];
  for (let round = 0; round < rounds; round++) {
    throwIfAborted(signal);
    const start = performance.now();
    await run();
    seconds.push((performance.now() - start) / 1000);
  }
  return seconds.sort((a, b) => a - b)[Math.floor(rounds / 2)];
}
