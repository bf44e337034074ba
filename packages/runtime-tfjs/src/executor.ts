/** @file Runs graphs on TensorFlow.js, node by node. */
import { setImmediate } from "node:timers/promises";
import { EspalierError } from "@espalier/base";
import {
  cost,
  type DeviceTensor,
  type Executor,
  expectFeed,
  expectMemory,
  expectMemoryLimit,
  isConstant,
  isDeviceTensor,
  isInput,
  makePortable,
  type Program,
  type ProgramSource,
  simplify,
  type Tensor,
  type TensorData,
  topologicalOrder,
  type Value,
} from "@espalier/graph";
import {
  getBackend,
  setBackend,
  type Tensor as TfTensor,
  tensor,
  tidy,
} from "@tensorflow/tfjs-core";
import { installedVersion, loadBackend, type TfjsBackend, tfjsBackends } from "./backends.ts";
import type { Kernel } from "./kernel.ts";
import { kernels } from "./kernels.ts";

export interface TfjsExecutorOptions {
  /** A device of `tfjsBackends`, or "tfjs" for the best that is installed, which is the default. */
  readonly device?: string | undefined;
  /** Threads of tfjs-node (default: as many as there are cores); other backends have one. */
  readonly threads?: number | undefined;
  /** Bytes that one program may take; default: no limit but the backend's. */
  readonly memoryLimit?: number | undefined;
}

/**
 * An executor on TensorFlow.js.
 *
 * @throws EspalierError `unknown-device` saying what to install or to change; `invalid-argument` for
 *   `memoryLimit`.
 */
export async function createTfjsExecutor(options: TfjsExecutorOptions = {}): Promise<Executor> {
  const { device = "tfjs", threads, memoryLimit } = options;
  expectMemoryLimit(memoryLimit);
  const chosen = tfjsBackends.find((backend) =>
    device === "tfjs" ? installedVersion(backend.package) !== undefined : backend.device === device,
  );
  if (chosen === undefined) {
    const known = ["tfjs", ...tfjsBackends.map((backend) => backend.device)];
    throw new EspalierError(
      "unknown-device",
      `device ${device}: expected one of ${known.join(", ")}`,
      { device, known },
    );
  }
  await loadBackend(chosen, threads);
  const limits = [memoryLimit, chosen.mostBytes].filter((limit) => limit !== undefined);
  const limit = limits.length === 0 ? undefined : Math.min(...limits);
  return {
    name: `tfjs:${chosen.device.slice("tfjs-".length)}`,
    memoryLimit: limit,
    compile: async <Output extends string, Kept extends string>(
      source: ProgramSource<Output, Kept>,
    ) => {
      const { outputs, kept = {} } = source;
      const names = { outputs: Object.keys(outputs), kept: Object.keys(kept) };
      const wanted = [...Object.values<Value>(outputs), ...Object.values<Value>(kept)];
      const values = simplify(makePortable(wanted));
      expectMemory(limit, cost(values).peakBytes);
      return attempt("compile", () => compile(names, values, source.constants, chosen)) as Program<
        Output,
        Kept
      >;
    },
  };
}

/** One node: which slots it reads, and which nobody reads after it. */
interface Step {
  readonly value: Value;
  readonly kernel: Kernel;
  readonly operands: readonly number[];
  readonly released: readonly number[];
}

/** A result in the memory of a backend. */
class BackendTensor implements DeviceTensor {
  readonly tensor: TfTensor;
  readonly backend: TfjsBackend;
  readonly dtype: DeviceTensor["dtype"];
  readonly shape: readonly number[];

  constructor(tensor: TfTensor, backend: TfjsBackend, { dtype, shape }: Value) {
    this.tensor = tensor;
    this.backend = backend;
    this.dtype = dtype;
    this.shape = shape;
  }

  /** The tensor, unless it was disposed of. */
  get live(): TfTensor {
    if (this.tensor.isDisposed) throw gone("tensor");
    return this.tensor;
  }

  async read(): Promise<TensorData> {
    activate(this.backend);
    return fromTfjs(this.live, this).data;
  }

  dispose(): void {
    activate(this.backend);
    this.tensor.dispose();
  }
}

function gone(what: "program" | "tensor"): EspalierError {
  return new EspalierError(
    "runtime",
    `${what}: expected one that is still there, got one that was disposed of`,
  );
}

function compile(
  names: { readonly outputs: readonly string[]; readonly kept: readonly string[] },
  values: readonly Value[],
  constants: ReadonlyMap<Value, TensorData> = new Map(),
  backend: TfjsBackend,
): Program<string, string> {
  const order = topologicalOrder(values);
  const slots = new Map(order.map((value, slot) => [value, slot]));
  const results = values.map((value) => slots.get(value)!);
  const inputs = order.flatMap((value, slot) =>
    isInput(value) && !constants.has(value) ? [{ ...value.attributes, slot }] : [],
  );
  const { device, mostAxes = Number.POSITIVE_INFINITY } = backend;
  const wide = order.find(({ shape }) => shape.length > mostAxes);
  if (wide !== undefined) {
    throw new EspalierError(
      "runtime",
      `${wide.operation.name}: expected at most ${mostAxes} axes on ${device}, got [${wide.shape}]`,
      { device, operation: wide.operation.name, shape: wide.shape },
    );
  }
  activate(backend);
  // Constants stay with the backend from run to run.
  const bound = new Map<number, TfTensor>();
  const unbind = () => {
    for (const constant of bound.values()) constant.dispose();
    bound.clear();
  };
  try {
    order.forEach((value, slot) => {
      const data = isConstant(value) ? value.attributes.data : constants.get(value);
      if (data !== undefined) bound.set(slot, toTfjs(data, value.shape));
    });
  } catch (error) {
    unbind();
    throw error;
  }
  const lastUse = new Map<number, number>();
  order.forEach((value, slot) => {
    for (const operand of value.inputs) lastUse.set(slots.get(operand)!, slot);
  });
  const held = new Set([...results, ...bound.keys()]);
  const released = order.map((): number[] => []);
  for (const [slot, last] of lastUse) if (!held.has(slot)) released[last].push(slot);
  const steps = order.flatMap((value, slot): (Step & { slot: number })[] => {
    if (isInput(value) || isConstant(value)) return [];
    const operands = value.inputs.map((operand) => slots.get(operand)!);
    return [
      { slot, value, kernel: kernels[value.operation.name], operands, released: released[slot] },
    ];
  });

  let disposed = false;
  const run = (feeds: Readonly<Record<string, TensorData | BackendTensor>>) => {
    const alive = new Map(bound);
    const release = (slot: number) => {
      alive.get(slot)!.dispose();
      alive.delete(slot);
    };
    if (disposed) throw gone("program");
    activate(backend);
    try {
      for (const { name, shape, slot } of inputs) {
        const feed = feeds[name];
        alive.set(slot, feed instanceof BackendTensor ? feed.live.clone() : toTfjs(feed, shape));
      }
      for (const { slot, value, kernel, operands, released } of steps) {
        const given = operands.map((operand) => alive.get(operand)!);
        const result = tidy(() => {
          const computed = kernel(given, value, backend);
          // What a kernel hands through is freed with its operand.
          return given.includes(computed) ? computed.clone() : computed;
        });
        alive.set(slot, result);
        released.forEach(release);
      }
      const all = [...names.outputs, ...names.kept];
      return Object.fromEntries(
        all.map((name, i) => {
          const result = alive.get(results[i])!;
          const keeps = i >= names.outputs.length;
          return [
            name,
            keeps
              ? new BackendTensor(result.clone(), backend, values[i])
              : fromTfjs(result, values[i]),
          ];
        }),
      ) as Record<string, Tensor & DeviceTensor>;
    } finally {
      for (const slot of alive.keys()) if (!bound.has(slot)) alive.get(slot)!.dispose();
    }
  };

  return {
    inputs: inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    run: async (feeds) => {
      const near: Record<string, TensorData | BackendTensor> = {};
      for (const expected of inputs) {
        const { name } = expected;
        const feed = expectFeed(expected, feeds[name]);
        const own = feed instanceof BackendTensor && feed.backend === backend;
        near[name] = isDeviceTensor(feed) && !own ? await feed.read() : feed;
      }
      // The run itself never waits: between runs, signals and timers get their turn.
      await setImmediate();
      return attempt("run", () => run(near));
    },
    dispose: async () => {
      disposed = true;
      unbind();
    },
  };
}

/**
 * Makes `backend`, which is loaded, the current one. Whatever runs next, up to the next wait, runs on
 * it.
 */
function activate({ engine }: TfjsBackend): void {
  if (getBackend() === engine) return;
  // What is loaded is switched to at once; only what is not makes it wait.
  void setBackend(engine);
  if (getBackend() !== engine) throw new Error(`${engine} is not loaded`);
}

// Integers are 32 bits wide in TensorFlow.js.
const INTEGERS = 2n ** 31n;

function toTfjs(data: TensorData, shape: readonly number[]): TfTensor {
  // Some backends keep the very array that they are given, which the giver may change afterwards.
  if (data instanceof Float32Array) return tensor(data.slice(), [...shape], "float32");
  if (data instanceof Uint8Array) return tensor(data.slice(), [...shape], "bool");
  const narrow = Int32Array.from(data, (element) => {
    if (element >= -INTEGERS && element < INTEGERS) return Number(element);
    throw new EspalierError("runtime", `expected an integer of 32 bits, got ${element}`);
  });
  return tensor(narrow, [...shape], "int32");
}

function fromTfjs(result: TfTensor, { dtype, shape }: Pick<Value, "dtype" | "shape">): Tensor {
  const data = result.dataSync();
  // On the cpu backend, the memory may be that of a tensor that stays.
  if (dtype === "float32") return { dtype, shape, data: Float32Array.from(data) };
  if (dtype === "bool") return { dtype, shape, data: Uint8Array.from(data) };
  return { dtype, shape, data: BigInt64Array.from(data as Int32Array, BigInt) };
}

function attempt<T>(action: "compile" | "run", work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (EspalierError.isInstance(error)) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new EspalierError("runtime", `TensorFlow.js could not ${action}: ${message}`, {}, error);
  }
}
