/** @file Runs finished ONNX files, as those who get one would. */
import type { Tensor } from "@espalier/graph";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { type OnnxExecutorOptions, sessionOptions } from "./executor.ts";
import { attempt, fromOrt } from "./sessions.ts";

/** A loaded ONNX model. Dimensions that it leaves open take their sizes from what it is given. */
export interface OnnxModel {
  /**
   * Runs the model once, given all its inputs, and returns all its outputs by their names.
   *
   * @throws EspalierError `runtime` for missing inputs and those of another type or shape, and if
   *   ONNX Runtime fails.
   */
  run(feeds: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>>;
  /** Frees the model's memory. It cannot run afterwards. */
  dispose(): Promise<void>;
}

/** @throws EspalierError `runtime` if ONNX Runtime does not accept the model or the options. */
export async function openOnnxModel(
  bytes: Uint8Array,
  options: OnnxExecutorOptions = {},
): Promise<OnnxModel> {
  const session = await attempt("compile", () =>
    InferenceSession.create(bytes, sessionOptions(options)),
  );
  return {
    run: async (feeds) => {
      const results = await attempt("run", () => {
        const tensors = Object.entries(feeds).map(
          ([name, { dtype, data, shape }]) => [name, new OrtTensor(dtype, data, shape)] as const,
        );
        return session.run(Object.fromEntries(tensors));
      });
      return Object.fromEntries(
        Object.entries(results).map(([name, tensor]) => [name, fromOrt(tensor)]),
      );
    },
    dispose: () => session.release(),
  };
}
