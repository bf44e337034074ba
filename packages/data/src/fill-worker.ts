/** @file The worker that fills augmented batches; see image-samples.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { makeBatch } from "./fill-batch.ts";
import type { FillReply, FillRequest, FillWorkerData } from "./image-samples.ts";

const { split, preprocessing } = workerData as FillWorkerData;

parentPort?.on("message", ({ id, indices, placements }: FillRequest) => {
  try {
    const batch = makeBatch(split, indices, preprocessing, placements);
    const reply: FillReply = { id, batch };
    parentPort?.postMessage(reply, [batch.images.buffer, batch.labels.buffer] as ArrayBuffer[]);
  } catch (error) {
    const reply: FillReply = { id, error: error instanceof Error ? error.message : String(error) };
    parentPort?.postMessage(reply);
  }
});
