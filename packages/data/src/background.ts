/** @file Work that a thread of its own does, while this one is kept busy by computation. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { EspalierError } from "@espalier/base";

interface Request<Input> {
  readonly id: number;
  readonly input: Input;
}

type Reply<Output> =
  | { readonly id: number; readonly output: Output }
  | { readonly id: number; readonly error: string };

/** What is done: `data` is the same for all inputs. Arrays in the output change their owner. */
export type Work<Data, Input, Output> = (data: Data, input: Input) => Promise<Output>;

/**
 * A function that has a worker do `work`. The worker does not keep the process alive unless an answer
 * is awaited.
 *
 * @param script The built module that calls `serve` with the same work.
 */
export function startBackground<Data, Input, Output>(
  script: URL,
  data: Data,
  work: Work<Data, Input, Output>,
): (input: Input) => Promise<Output> {
  const path = fileURLToPath(script);
  // Run from its TypeScript sources, the package has no script that a worker could load.
  if (!existsSync(path)) return (input) => work(data, input);
  const worker = new Worker(path, { workerData: data });
  worker.unref();
  const pending = new Map<
    number,
    { resolve(output: Output): void; reject(error: unknown): void }
  >();
  worker.on("message", (reply: Reply<Output>) => {
    const request = pending.get(reply.id);
    pending.delete(reply.id);
    if (pending.size === 0) worker.unref();
    if ("output" in reply) request?.resolve(reply.output);
    else request?.reject(new EspalierError("runtime", `preparing samples: ${reply.error}`));
  });
  worker.on("error", (error) => {
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  });
  let nextId = 0;
  return (input) =>
    new Promise((resolve, reject) => {
      const request: Request<Input> = { id: nextId++, input };
      pending.set(request.id, { resolve, reject });
      worker.ref();
      worker.postMessage(request);
    });
}

/** Does `work` for the thread that started this one. */
export function serve<Data, Input, Output extends object>(work: Work<Data, Input, Output>): void {
  parentPort?.on("message", async ({ id, input }: Request<Input>) => {
    try {
      const output = await work(workerData as Data, input);
      const arrays = Object.values(output).filter(ArrayBuffer.isView);
      const reply: Reply<Output> = { id, output };
      parentPort?.postMessage(reply, arrays.map(({ buffer }) => buffer) as ArrayBuffer[]);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const reply: Reply<Output> = { id, error: message };
      parentPort?.postMessage(reply);
    }
  });
}
