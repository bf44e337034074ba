/** @file The contract between graphs and what runs them. */
import { EspalierError } from "@espalier/base";
import type { DType, Shape, TensorData, Value } from "./value.ts";

/** A tensor in memory. `data` belongs to the receiver. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TensorData;
}

export interface ProgramSource<Output extends string = string> {
  /** What to compute, under the names that `run` returns it by. */
  readonly outputs: Readonly<Record<Output, Value>>;
  /** Inputs whose tensors never change: the executor may rearrange them once for speed. */
  readonly constants?: ReadonlyMap<Value, TensorData>;
}

export interface Program<Output extends string = string> {
  /** The inputs that `run` must be given: those the outputs use, less the constants. */
  readonly inputs: readonly {
    readonly name: string;
    readonly dtype: DType;
    readonly shape: Shape;
  }[];
  /**
   * Runs once. Feeds are read before the promise resolves and may be reused afterwards; results are
   * new tensors.
   *
   * @throws EspalierError `invalid-argument` for a missing feed or one of the wrong length;
   *   `runtime` if the executor fails.
   */
  run(feeds: Readonly<Record<string, TensorData>>): Promise<Record<Output, Tensor>>;
  /** Frees the program's memory. It cannot run afterwards. */
  dispose(): Promise<void>;
}

export interface Executor {
  /** Such as "onnx:cpu". */
  readonly name: string;
  /** Bytes that one program may take, as `cost` predicts them; default: no limit. */
  readonly memoryLimit?: number | undefined;
  /**
   * @throws EspalierError `out-of-memory` if the program would exceed the memory limit; `runtime` if
   *   the executor does not accept it.
   */
  compile<Output extends string>(source: ProgramSource<Output>): Promise<Program<Output>>;
}

/** @throws EspalierError `out-of-memory` if a program needs more than it may take. */
export function expectMemory(limit: number | undefined, peakBytes: number): void {
  if (limit === undefined || peakBytes <= limit) return;
  const megabytes = (bytes: number) => `${Number((bytes / 1e6).toPrecision(3))} MB`;
  throw new EspalierError(
    "out-of-memory",
    `memory: expected a program of at most ${megabytes(limit)}, got one of ${megabytes(peakBytes)}; a smaller batch or a higher limit helps`,
    { limit, peakBytes },
  );
}

/** The data of a float32 tensor. Throws a TypeError for tensors of other types. */
export function float32Data(tensor: Tensor): Float32Array {
  if (tensor.data instanceof Float32Array) return tensor.data;
  throw new TypeError(`expected a float32 tensor, got ${tensor.dtype}`);
}
