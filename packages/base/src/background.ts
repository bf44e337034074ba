/** @file Work that a thread of its own does. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { EspalierError } from "./error.ts";

interface Request<Input> {
  readonly id: number;
  readonly input: Input;
}

interface WorkerData<Data> {
  readonly data: Data;
  /** How many answers the worker is busy with, and whether it is to begin no more. */
  readonly busy: Int32Array<SharedArrayBuffer>;
}

// Native code that a thread is stopped in ends the process with an error.
const LONGEST_WAIT_MS = 30_000;

type Reply<Output> =
  | { readonly id: number; readonly output: Output }
  | { readonly id: number; readonly error: string };

/**
 * What is done: `data` is the same for all inputs. Arrays in the output change their owner, so that they
 * must be used by nothing else.
 */
export type Work<Data, Input, Output> = (data: Data, input: Input) => Promise<Output>;

/**
 * A function that has a worker do `work`. The worker does not keep the process alive unless an answer is
 * awaited. Inputs are copied, but for the arrays `moved`, which can no longer be used here. What the work
 * throws comes back as an EspalierError `runtime` with the same message.
 *
 * @param script The built module that calls `serve` with the same work. Where there is none, as for a
 *   package that is run from its TypeScript sources, this thread does the work.
 */
export function startBackground<Data, Input, Output>(
  script: URL,
  data: Data,
  work: Work<Data, Input, Output>,
): (input: Input, moved?: readonly ArrayBuffer[]) => Promise<Output> {
  const path = fileURLToPath(script);
  if (!existsSync(path)) return (input) => work(data, input);
  const busy = new Int32Array(new SharedArrayBuffer(8));
  const shared: WorkerData<Data> = { data, busy };
  // Conditions and hooks for sources are not for built modules.
  const worker = new Worker(path, { workerData: shared, execArgv: [] });
  worker.unref();
  if (!isWaiting) process.on("exit", finishAll);
  isWaiting = true;
  running.add(busy);
  const pending = new Map<
    number,
    { resolve(output: Output): void; reject(error: unknown): void }
  >();
  worker.on("message", (reply: Reply<Output>) => {
    const request = pending.get(reply.id);
    pending.delete(reply.id);
    if (pending.size === 0) worker.unref();
    if ("output" in reply) request?.resolve(reply.output);
    else request?.reject(new EspalierError("runtime", reply.error));
  });
  let failure: Error | undefined;
  const fail = (what: string, error?: unknown) => {
    failure ??= new EspalierError("runtime", `${path}: ${what}`, {}, error);
    for (const { reject } of pending.values()) reject(failure);
    pending.clear();
  };
  worker.on("error", (error) => fail(messageOf(error), error));
  worker.on("messageerror", (error) => fail(messageOf(error), error));
  worker.on("exit", (code) => {
    running.delete(busy);
    fail(`it ended with ${code}`);
  });
  let nextId = 0;
  return (input, moved = []) =>
    new Promise((resolve, reject) => {
      if (failure !== undefined) return reject(failure);
      const request: Request<Input> = { id: nextId++, input };
      try {
        worker.postMessage(request, moved);
      } catch (error) {
        const message = `${path}: it could not be told: ${messageOf(error)}`;
        return reject(new EspalierError("runtime", message, {}, error));
      }
      pending.set(request.id, { resolve, reject });
      worker.ref();
    });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const running = new Set<WorkerData<unknown>["busy"]>();
let isWaiting = false;

/** Waits until workers have done what they have begun, where the process ends in the midst of it. */
function finishAll(): void {
  const deadline = Date.now() + LONGEST_WAIT_MS;
  for (const busy of running) Atomics.store(busy, 1, 1);
  for (const busy of running) {
    for (let count = Atomics.load(busy, 0); count > 0; count = Atomics.load(busy, 0)) {
      if (Atomics.wait(busy, 0, count, deadline - Date.now()) === "timed-out") return;
    }
  }
}

/** Does `work` for the thread that started this one. */
export function serve<Data, Input, Output>(work: Work<Data, Input, Output>): void {
  const { data, busy } = workerData as WorkerData<Data>;
  // What cannot be received has no number that could be answered.
  parentPort?.on("messageerror", (error) => {
    throw error;
  });
  parentPort?.on("message", async ({ id, input }: Request<Input>) => {
    Atomics.add(busy, 0, 1);
    try {
      if (Atomics.load(busy, 1) === 1) return;
      const output = await work(data, input);
      const reply: Reply<Output> = { id, output };
      parentPort?.postMessage(reply, [...new Set(buffersIn(output))]);
    } catch (error) {
      const reply: Reply<Output> = { id, error: messageOf(error) };
      parentPort?.postMessage(reply);
    } finally {
      Atomics.sub(busy, 0, 1);
      Atomics.notify(busy, 0);
    }
  });
}

function buffersIn(value: unknown): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) return [value.buffer as ArrayBuffer];
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(buffersIn);
}
