/** @file The process that reads a Parquet file; see read-parquet.ts. */
import { once } from "node:events";
import { pipeline } from "node:stream/promises";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { parquetLines } from "./parquet-lines.ts";
import { LONGEST_MS, MOST_MEMORY } from "./read-parquet.ts";

const CHECK_MS = 50;

if (isMainThread) {
  const guard = new Worker(new URL(import.meta.url));
  await once(guard, "message");
  guard.unref();
  try {
    await pipeline(parquetLines(process.argv[2]), process.stdout);
  } catch (error) {
    process.stderr.write(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
} else {
  // The thread that reads looks at nothing while it does, and V8 limits only part of the memory.
  const start = performance.now();
  setInterval(() => {
    if (process.memoryUsage.rss() <= MOST_MEMORY && performance.now() - start <= LONGEST_MS) return;
    process.kill(process.pid, "SIGKILL");
  }, CHECK_MS);
  parentPort?.postMessage("ready");
}
