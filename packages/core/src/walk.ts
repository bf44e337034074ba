/** @file One graph computed part after part, over batches that stay the same. */
import {
  cost,
  type Executor,
  float32Data,
  isInput,
  type Part,
  simplify,
  splitSequence,
  type TensorData,
  type Value,
} from "@espalier/graph";

/**
 * Computes the next of several steps for every batch, then the one after it, and so on. What later
 * steps need of earlier ones is held for all batches, so that nothing is computed twice; parameters
 * that no earlier step depends on may change in between.
 */
export class Walk {
  readonly #parts: readonly Part[];
  /** For each batch, by values of the whole graph. */
  #held: Map<Value, TensorData>[] = [];

  /**
   * @param mostBytes What may be held for one batch; beyond it, some values are computed again.
   * @param parameters What may change from step to step.
   */
  constructor(
    steps: readonly (readonly Value[])[],
    mostBytes: number,
    parameters: Iterable<Value> = [],
  ) {
    this.#parts = splitSequence(steps, mostBytes, parameters);
  }

  /** What the largest part needs, as `cost` predicts it. */
  get peakBytes(): number {
    return this.#parts.reduce(
      (peak, part) => Math.max(peak, cost(simplify(outputsOf(part))).peakBytes),
      0,
    );
  }

  /** Step `index`, ready to run on the batches in their order. */
  async open(
    index: number,
    executor: Executor,
    constants: ReadonlyMap<Value, TensorData>,
  ): Promise<WalkStep> {
    const part = this.#parts[index];
    const outputs = outputsOf(part);
    const program = await executor.compile({
      outputs: Object.fromEntries(outputs.map((value, i) => [String(i), value])),
      constants,
    });
    const before = this.#held;
    const after: Map<Value, TensorData>[] = [];
    this.#held = after;
    return {
      inputs: new Set(program.inputs.map(({ name }) => name)),
      run: async (batch, feeds) => {
        const own = Object.fromEntries(
          [...part.held].map(([value, { attributes }]) => [
            attributes.name,
            before[batch].get(value)!,
          ]),
        );
        const results = await program.run({ ...feeds, ...own });
        let next = part.outputs.length;
        const kept = [...part.kept].map(([value, computed]): [Value, TensorData] => [
          value,
          isInput(computed) ? before[batch].get(value)! : results[String(next++)].data,
        ]);
        after[batch] = new Map(kept);
        // Nothing asks for it any more.
        before[batch] = new Map();
        return part.outputs.map((_, i) => float32Data(results[String(i)]));
      },
      dispose: () => program.dispose(),
    };
  }
}

export interface WalkStep {
  /** Names of the inputs that `run` must be given, besides what the walk holds. */
  readonly inputs: ReadonlySet<string>;
  run(batch: number, feeds: Readonly<Record<string, TensorData>>): Promise<Float32Array[]>;
  dispose(): Promise<void>;
}

/** What a part asked for, then what it computes for the next. */
function outputsOf({ outputs, kept }: Part): Value[] {
  return [...outputs, ...[...kept.values()].filter((value) => !isInput(value))];
}
