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
  expectFeed,
  expectMemory,
  expectMemoryLimit,
  input,
  isDeviceTensor,
  lowerToOnnx,
  makePortable,
  type OnnxGraph,
  type Program,
  type ProgramSource,
  simplify,
  type Tensor,
  type TensorData,
  type Value,
} from "@espalier/graph";
import { env, type InferenceSession, listSupportedBackends } from "onnxruntime-node";
import { blockedConv, blockSize } from "./blocked-conv.ts";
import { fusedMatmul } from "./fused-matmul.ts";
import { startSessions } from "./session-thread.ts";
import { createSessions, type HeldTensor, type Sessions } from "./sessions.ts";

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
  expectMemoryLimit(memoryLimit);
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
      // ONNX Runtime heeds `set_denormal_as_zero` of the first session in a thread alone, so that this one
      // has the options of all.
      const block =
        device === "cpu"
          ? await blockSize(sessionsOf(options), sessionOptions(options))
          : undefined;
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

// Only for this provider does onnxruntime-node leave results where they are.
const KEEPING_DEVICE = "webgpu";

// Sessions of processors are in a thread of their own, once for all executors; what is on a GPU is not
// handed from thread to thread.
let background: Sessions | undefined;
let here: Sessions | undefined;

function sessionsOf({ device = "cpu" }: OnnxExecutorOptions): Sessions {
  if (device !== "cpu") return (here ??= createSessions());
  return (background ??= startSessions());
}

/** A result that stays where it was computed. */
class KeptTensor implements DeviceTensor {
  readonly held: HeldTensor;
  readonly sessions: Sessions;
  readonly #read: (tensor: KeptTensor) => Promise<TensorData>;

  constructor(held: HeldTensor, sessions: Sessions, read: (of: KeptTensor) => Promise<TensorData>) {
    this.held = held;
    this.sessions = sessions;
    this.#read = read;
  }

  get dtype(): DeviceTensor["dtype"] {
    return this.held.dtype;
  }

  get shape(): readonly number[] {
    return this.held.shape;
  }

  read(): Promise<TensorData> {
    return this.#read(this);
  }

  dispose(): void {
    // Sessions that are lost have lost their tensors, too.
    this.sessions.drop(this.held.held).catch(() => {});
  }
}

interface ResultNames {
  readonly outputs: readonly string[];
  readonly kept: readonly string[];
}

/** A session for `graph`, whose outputs are called `result.0` and so on. */
function openSession(
  graph: OnnxGraph,
  { outputs, kept }: ResultNames,
  options: OnnxExecutorOptions,
): Promise<number> {
  const keeps = options.device === KEEPING_DEVICE && kept.length > 0;
  const locations = [
    ...outputs.map(() => "cpu" as const),
    ...kept.map(() => "gpu-buffer" as const),
  ];
  return sessionsOf(options).open({
    model: encodeOnnx(graph),
    outputs: outputs.length,
    options: {
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
    },
  });
}

/** Loads `graph` in a session of its own. What the program keeps does not include the graph. */
async function openProgram(
  graph: OnnxGraph,
  names: ResultNames,
  options: OnnxExecutorOptions,
): Promise<Program<string, string>> {
  const all = [...names.outputs, ...names.kept];
  const sessions = sessionsOf(options);
  const session = await openSession(graph, names, options);
  const inputs = graph.inputs.map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape: shape as readonly number[],
  }));
  // `OrtTensor.getData` of a GPU's tensor ends the process (onnxruntime-node 1.30), so that tensors
  // are read as the results of programs that do nothing.
  const readers = new Map<string, Promise<Program<"copy">>>();
  const read = async (tensor: KeptTensor): Promise<TensorData> => {
    const { dtype, shape } = tensor;
    if (options.device !== KEEPING_DEVICE) return sessions.read(tensor.held.held);
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
      const given: Record<string, Tensor | HeldTensor> = {};
      for (const expected of inputs) {
        const { name, dtype, shape } = expected;
        const feed = expectFeed(expected, feeds[name]);
        if (feed instanceof KeptTensor && feed.sessions === sessions) {
          given[name] = feed.held;
          continue;
        }
        const data = isDeviceTensor(feed) ? await feed.read() : feed;
        given[name] = { dtype, shape, data };
      }
      const results = await sessions.run(session, given);
      return Object.fromEntries(
        results.map((result, i) => [
          all[i],
          "held" in result ? new KeptTensor(result, sessions, read) : result,
        ]),
      ) as Record<string, Tensor & DeviceTensor>;
    },
    dispose: async () => {
      for (const reader of readers.values()) await (await reader).dispose();
      await sessions.close(session);
    },
  };
}
