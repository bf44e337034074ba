/** @file Runs graphs on ONNX Runtime: one session per program. */
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { EspalierError } from "@espalier/base";
import {
  cost,
  type DeviceTensor,
  type Executor,
  encodeOnnx,
  expectMemory,
  input,
  isDeviceTensor,
  lowerToOnnx,
  makePortable,
  memoryTensor,
  type OnnxGraph,
  type Program,
  type ProgramSource,
  simplify,
  sizeOf,
  type Tensor,
  type TensorData,
  type Value,
} from "@espalier/graph";
import {
  env,
  InferenceSession,
  listSupportedBackends,
  Tensor as OrtTensor,
} from "onnxruntime-node";
import { blockedConv, blockSize } from "./blocked-conv.ts";
import { fusedMatmul } from "./fused-matmul.ts";

export interface OnnxExecutorOptions {
  /** One of `onnxDevices()`; default "cpu". */
  readonly device?: string | undefined;
  /** Threads within an operator (default: as many as there are cores). */
  readonly threads?: number | undefined;
  /** Bytes that one program may take; default: no limit. */
  readonly memoryLimit?: number | undefined;
}

/** The execution providers that ONNX Runtime has on this platform, and whether each is installed. */
export function onnxProviders(): { readonly device: string; readonly present: boolean }[] {
  const require = createRequire(import.meta.url);
  const binaries = join(dirname(require.resolve("onnxruntime-node/package.json")), "bin");
  // Providers that are not in ONNX Runtime's own library are libraries beside it.
  const beside = readdirSync(binaries, { recursive: true, encoding: "utf8" })
    .filter((path) => path.includes(join(process.platform, process.arch)))
    .join();
  return listSupportedBackends().map(({ name, bundled }) => ({
    device: name,
    present: bundled || beside.includes(`onnxruntime_providers_${name}.`),
  }));
}

/** The execution providers that are installed, such as "cpu". */
export function onnxDevices(): string[] {
  return onnxProviders().flatMap(({ device, present }) => (present ? [device] : []));
}

/** The version of ONNX Runtime. */
export function onnxVersion(): string {
  return env.versions.node ?? "unknown";
}

/**
 * An executor on ONNX Runtime.
 *
 * @throws EspalierError `unknown-device` listing those present; `invalid-argument` for `threads`
 *   and `memoryLimit`.
 */
export function createOnnxExecutor(options: OnnxExecutorOptions = {}): Executor {
  const { device = "cpu", threads, memoryLimit } = options;
  const present = onnxDevices();
  if (!present.includes(device)) {
    throw new EspalierError(
      "unknown-device",
      `device ${device}: expected one of ${present.join(", ")}`,
      { device, present },
    );
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new EspalierError(
      "invalid-argument",
      `threads: expected a positive whole number, got ${threads}`,
    );
  }
  if (memoryLimit !== undefined && !(memoryLimit > 0)) {
    throw new EspalierError(
      "invalid-argument",
      `memoryLimit: expected a positive number of bytes, got ${memoryLimit}`,
    );
  }
  return {
    name: `onnx:${device}`,
    memoryLimit,
    compile: async <Output extends string, Kept extends string>(
      source: ProgramSource<Output, Kept>,
    ) => {
      const { outputs, kept = {} } = source;
      const wanted = [...Object.values<Value>(outputs), ...Object.values<Value>(kept)];
      // Some providers lack operators, such as maxima with their positions.
      const values = simplify(device === "cpu" ? wanted : makePortable(wanted));
      expectMemory(memoryLimit, cost(values).peakBytes);
      // Results have names of their own in the model, since a result may be called like an input.
      const results = values.map((value, i) => [`result.${i}`, value]);
      const block = device === "cpu" ? await blockSize() : undefined;
      const graph = lowerToOnnx(Object.fromEntries(results), {
        ...source,
        emitConv: block === undefined ? undefined : blockedConv(block),
        emitMatmul: device === "cpu" ? fusedMatmul : undefined,
      });
      const names = { outputs: Object.keys(outputs), kept: Object.keys(kept) };
      return (await openProgram(graph, names, options)) as Program<Output, Kept>;
    },
  };
}

/** How sessions are opened, whether for our programs or for exported files. */
export function sessionOptions({
  device = "cpu",
  threads,
}: OnnxExecutorOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: [device],
    graphOptimizationLevel: "all",
    // Errors only; they are thrown as well.
    logSeverityLevel: 3,
    ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    // Gradients of confident models are full of denormal numbers, which are slow and irrelevant.
    extra: { session: { set_denormal_as_zero: "1" } },
  };
}

/** A result in the memory of a GPU. */
class GpuTensor implements DeviceTensor {
  readonly tensor: OrtTensor;
  readonly #copy: (tensor: GpuTensor) => Promise<TensorData>;

  constructor(tensor: OrtTensor, copy: (tensor: GpuTensor) => Promise<TensorData>) {
    this.tensor = tensor;
    this.#copy = copy;
  }

  get dtype(): DeviceTensor["dtype"] {
    return this.tensor.type as DeviceTensor["dtype"];
  }

  get shape(): readonly number[] {
    return this.tensor.dims;
  }

  read(): Promise<TensorData> {
    return this.#copy(this);
  }

  dispose(): void {
    this.tensor.dispose();
  }
}

// Only for this provider does onnxruntime-node leave results where they are.
const KEEPING_DEVICE = "webgpu";

interface ResultNames {
  readonly outputs: readonly string[];
  readonly kept: readonly string[];
}

/** A session for `graph`, whose outputs are called `result.0` and so on. */
function openSession(
  graph: OnnxGraph,
  { outputs, kept }: ResultNames,
  options: OnnxExecutorOptions,
): Promise<InferenceSession> {
  const keeps = options.device === KEEPING_DEVICE && kept.length > 0;
  const locations = [
    ...outputs.map(() => "cpu" as const),
    ...kept.map(() => "gpu-buffer" as const),
  ];
  return attempt("compile", () =>
    InferenceSession.create(encodeOnnx(graph), {
      ...sessionOptions(options),
      // A pattern planned in the first run asks for all its memory anew in the second, while the
      // first run's is kept: it doubles what a program takes, and our programs run no faster by it.
      enableMemPattern: false,
      ...(keeps
        ? {
            preferredOutputLocation: Object.fromEntries(
              locations.map((location, i) => [`result.${i}`, location]),
            ),
          }
        : {}),
    }),
  );
}

/** Loads `graph` in a session of its own. What the program keeps does not include the graph. */
async function openProgram(
  graph: OnnxGraph,
  names: ResultNames,
  options: OnnxExecutorOptions,
): Promise<Program<string, string>> {
  const isKept = (i: number) => i >= names.outputs.length;
  const all = [...names.outputs, ...names.kept];
  const session = await openSession(graph, names, options);
  const inputs = graph.inputs.map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape: shape as readonly number[],
  }));
  // `OrtTensor.getData` of a GPU's tensor ends the process (onnxruntime-node 1.30), so that tensors
  // are read as the results of programs that do nothing.
  const readers = new Map<string, Promise<Program<"copy">>>();
  const copy = async (tensor: GpuTensor): Promise<TensorData> => {
    const { dtype, shape } = tensor;
    const key = `${dtype} ${shape}`;
    const reader =
      readers.get(key) ??
      createOnnxExecutor(options).compile({ outputs: { copy: input("tensor", shape, dtype) } });
    readers.set(key, reader);
    return (await (await reader).run({ tensor })).copy.data;
  };
  return {
    inputs,
    run: async (feeds) => {
      const tensors: Record<string, OrtTensor> = {};
      for (const { name, dtype, shape } of inputs) {
        const feed = feeds[name];
        if (feed instanceof GpuTensor) {
          tensors[name] = feed.tensor;
          continue;
        }
        const data = isDeviceTensor(feed) ? await feed.read() : feed;
        tensors[name] = new OrtTensor(dtype, checkFeed(name, data, sizeOf(shape)), shape);
      }
      const results = await attempt("run", () => session.run(tensors));
      return Object.fromEntries(
        all.map((name, i) => {
          const result = results[`result.${i}`];
          if (result.location === "gpu-buffer") return [name, new GpuTensor(result, copy)];
          return [name, isKept(i) ? memoryTensor(fromOrt(result)) : fromOrt(result)];
        }),
      ) as Record<string, Tensor & DeviceTensor>;
    },
    dispose: async () => {
      for (const reader of readers.values()) await (await reader).dispose();
      await session.release();
    },
  };
}

function checkFeed(name: string, data: TensorData | undefined, size: number): TensorData {
  if (data?.length === size) return data;
  throw new EspalierError(
    "invalid-argument",
    `input ${name}: expected ${size} elements, got ${data?.length ?? "none"}`,
    { name, expected: size, actual: data?.length },
  );
}

/** A result of ONNX Runtime, over the same memory. */
export function fromOrt({ data, dims, type }: OrtTensor): Tensor {
  return { dtype: type as Tensor["dtype"], shape: dims, data: data as TensorData };
}

export async function attempt<T>(action: "compile" | "run", work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new EspalierError("runtime", `ONNX Runtime could not ${action}: ${message}`, {}, error);
  }
}
