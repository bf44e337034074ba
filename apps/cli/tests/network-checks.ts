/** Whole networks on an executor, beside the same in float64. */
import { componentGroups, estimate, type Model, Random, type Samples } from "@espalier/core";
import type { Executor } from "@espalier/graph";
import {
  type ConformanceCheck,
  createReferenceExecutor,
  type Deviation,
  deviationOf,
} from "@espalier/graph/testing";
import { bert } from "@espalier/nlp";
import { compileTrainingStep, disposeState, readState } from "@espalier/train";
import { noiseSamples, tinyResNet } from "@espalier/vision/testing";

const BATCH = 2;
const LENGTH = 5;

interface Network {
  readonly name: string;
  readonly model: Model;
  readonly samples: Samples;
  readonly length?: number;
}

const resnet20 = (): Network => {
  const model = tinyResNet({ depth: 20, widths: [16, 32, 64], size: 16, classes: 4 });
  // With the samples of seed 1 an activation is within rounding of zero, and its ReLU opens on
  // tfjs-node alone: the Hessian differs by 3 %, rightly on both sides.
  return { name: "ResNet-20", model, samples: noiseSamples(model, BATCH, 2) };
};

const encoder = (): Network => {
  const random = new Random(7);
  const fresh = bert.initialize(
    {
      model_type: "bert",
      vocab_size: 30,
      hidden_size: 16,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      intermediate_size: 24,
      max_position_embeddings: 8,
      type_vocab_size: 2,
      hidden_act: "gelu",
      head: { hidden: true, output: true },
      num_labels: 3,
    },
    random,
  );
  // As large as trained weights, so that attention is not even.
  const parameters = [...fresh.parameters].map(([name, parameter]) => {
    const noise = random.stream("weights", name);
    const centre = parameter.kind === "normalization" && name.endsWith("weight") ? 1 : 0;
    const data = parameter.data.map(() => centre + 0.3 * noise.normal());
    return [name, { ...parameter, data }] as const;
  });
  const tokens = random.stream("tokens");
  const fill = (of: () => number) =>
    BigInt64Array.from({ length: BATCH * LENGTH }, () => BigInt(of()));
  const feeds = {
    input_ids: fill(() => tokens.integer(30)),
    attention_mask: BigInt64Array.from([1, 1, 1, 1, 1, 1, 1, 1, 0, 0], BigInt),
    token_type_ids: fill(() => tokens.integer(2)),
  };
  return {
    name: "2-layer encoder",
    model: fresh.withParameters(new Map(parameters)),
    length: LENGTH,
    samples: {
      count: BATCH,
      lengths: new Uint32Array(BATCH).fill(LENGTH),
      batch: async () => ({ feeds, labels: [0, 2], length: LENGTH }),
    },
  };
};

/** Results by their names, as float64. */
type Results = ReadonlyMap<string, ArrayLike<number>>;

/** Loss, logits, new parameters and gradients of one step at a learning rate of 0.1. */
async function trainingStep(network: Network, executor: Executor): Promise<Results> {
  const { model, samples, length } = network;
  const step = await compileTrainingStep(model, executor, {
    batchSize: BATCH,
    length,
    optimizer: { name: "sgd", momentum: 0.9, nesterov: false, weightDecay: 1e-3 },
    statisticsMomentum: 0.1,
  });
  const { feeds, labels } = await samples.batch([...Array(BATCH).keys()]);
  const classes = model.classes.length;
  const targets = new Float32Array(BATCH * classes);
  Array.from(labels).forEach((label, n) => {
    targets[n * classes + label] = 1;
  });
  const { state, loss, logits } = await step.run(step.initialState(), {
    feeds,
    targets,
    learningRate: 0.1,
    step: 1,
  });
  const reached = await readState(state);
  disposeState(state);
  await step.dispose();
  return new Map<string, ArrayLike<number>>([["loss", [loss]], ["logits", logits], ...reached]);
}

/** The trace of every component, and with them first and second stage, backward passes and norms. */
async function exactTraces(network: Network, executor: Executor): Promise<Results> {
  const { model, samples } = network;
  const { mean } = await estimate(model, componentGroups(model, "together"), {
    executor,
    samples,
    quantity: "trace",
    estimator: "exact",
    draws: 1,
    temperature: 1,
    batchSize: BATCH,
    random: new Random(1),
  });
  return new Map([["traces", mean]]);
}

/** The Hessian along random signs, row by row. */
async function hessianForms(network: Network, executor: Executor): Promise<Results> {
  const { model, samples } = network;
  const { mean } = await estimate(model, componentGroups(model, "together"), {
    executor,
    samples,
    quantity: "trace",
    estimator: "hutchinson",
    draws: 1,
    temperature: 1,
    batchSize: BATCH,
    random: new Random(1),
  });
  return new Map([["forms", mean]]);
}

// The gradient of a key's bias is zero, since softmax does not see it: only rounding is left.
const LEAST_SCALE = 1e-2;

/** One result relative to its largest element, as for single operations. */
function compare(actual: Results, expected: Results): Deviation[] {
  return [...expected].map(([name, reference]) => {
    const shape = [reference.length];
    const data = Float32Array.from(actual.get(name) ?? []);
    return deviationOf(
      name,
      { dtype: "float32", shape: [data.length], data },
      { shape, data: Float64Array.from(reference) },
      LEAST_SCALE,
    );
  });
}

// Rounding errors of 20 layers, there and back; batches of two make normalisation sensitive.
const tolerance = { float32: 1e-4, int64: 0, bool: 0 };

function check(
  what: string,
  network: Network,
  compute: (network: Network, executor: Executor) => Promise<Results>,
): ConformanceCheck {
  let expected: Promise<Results> | undefined;
  return {
    name: `${what} of a ${network.name}`,
    tolerance,
    run: async (executor) => {
      expected ??= compute(network, createReferenceExecutor());
      return compare(await compute(network, executor), await expected);
    },
  };
}

/** Networks that an executor must get right; the reference is computed once for all executors. */
export function networkChecks(): ConformanceCheck[] {
  return [resnet20(), encoder()].flatMap((network) => [
    check("a training step", network, trainingStep),
    check("exact traces", network, exactTraces),
    check("Hessian quadratic forms", network, hessianForms),
  ]);
}
