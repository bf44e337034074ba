/** @file The contract between graphs and what runs them. */
import { EspalierError } from "@espalier/base";
import {
  type DType,
  type Shape,
  sameShape,
  sizeOf,
  type TensorData,
  tensorArrays,
  type Value,
} from "./value.ts";

/** A tensor in memory. `data` belongs to the receiver. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly data: TensorData;
}

/** A tensor that stays where it was computed. It must not outlive the program that computed it. */
export interface DeviceTensor {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Its elements, which belong to the receiver if the device has memory of its own. */
  read(): Promise<TensorData>;
  /** Frees it: it can be neither read nor fed afterwards, nor may a program still be running on it. */
  dispose(): void;
}

/** What programs are given; a tensor of another executor's device is read first. */
export type Feed = TensorData | DeviceTensor;

export interface ProgramSource<Output extends string = string, Kept extends string = never> {
  /** What to compute, under the names that `run` returns it by. */
  readonly outputs: Readonly<Record<Output, Value>>;
  /** What to compute for later runs, under names of its own: it stays on the device. */
  readonly kept?: Readonly<Record<Kept, Value>> | undefined;
  /** Inputs whose tensors never change: the executor may rearrange them once for speed. */
  readonly constants?: ReadonlyMap<Value, TensorData>;
}

export interface Program<Output extends string = string, Kept extends string = never> {
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
   * @throws EspalierError `invalid-argument` for a missing feed, data of the wrong length, or a tensor
   *   of a device of another shape or type; `runtime` if the executor fails, and for a program or a
   *   tensor that was disposed of.
   */
  run(
    feeds: Readonly<Record<string, Feed>>,
  ): Promise<Record<Output, Tensor> & Record<Kept, DeviceTensor>>;
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
  compile<Output extends string, Kept extends string = never>(
    source: ProgramSource<Output, Kept>,
  ): Promise<Program<Output, Kept>>;
}

/** Whether `feed` lies on a device. */
export function isDeviceTensor(feed: Feed | undefined): feed is DeviceTensor {
  return typeof (feed as DeviceTensor | undefined)?.read === "function";
}

/** A tensor of a device that computes in the machine's own memory: it is only handed on. */
export function memoryTensor({ dtype, shape, data }: Tensor): DeviceTensor {
  return { dtype, shape, read: async () => data, dispose: () => {} };
}

/** @throws EspalierError `invalid-argument` for a feed that is missing or does not fit the input. */
export function expectFeed<F extends Feed>(
  { name, dtype, shape }: { readonly name: string; readonly dtype: DType; readonly shape: Shape },
  feed: F | undefined,
): F {
  const refuse = (expected: string, actual: string | number) =>
    new EspalierError("invalid-argument", `input ${name}: expected ${expected}, got ${actual}`, {
      name,
      dtype,
      shape,
    });
  if (isDeviceTensor(feed)) {
    if (feed.dtype === dtype && sameShape(feed.shape, shape)) return feed;
    throw refuse(`${dtype}[${shape}]`, `${feed.dtype}[${feed.shape}]`);
  }
  if (feed?.length !== sizeOf(shape)) {
    throw refuse(`${sizeOf(shape)} elements`, feed?.length ?? "none");
  }
  const array = tensorArrays[dtype];
  if (feed instanceof array) return feed;
  throw refuse(`a ${array.name} of ${dtype}`, feed.constructor.name);
}

/** @throws EspalierError `invalid-argument` for a limit that is no positive number of bytes. */
export function expectMemoryLimit(limit: number | undefined): void {
  if (limit === undefined || limit > 0) return;
  throw new EspalierError(
    "invalid-argument",
    `memoryLimit: expected a positive number of bytes, got ${limit}`,
  );
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
