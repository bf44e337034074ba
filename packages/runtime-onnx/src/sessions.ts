/**
 * @file ONNX Runtime's sessions and the tensors that stay with them. A thread that has nothing else has
 * little garbage to look through: see docs/decisions/036-sessions-in-a-thread.md. So nothing but types
 * is imported from packages that are not needed there.
 */
import { EspalierError } from "@espalier/base";
import type { DType, Tensor, TensorData } from "@espalier/graph";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";

/** A tensor that stays with the sessions: `held` is its number. */
export interface HeldTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly held: number;
}

export interface SessionSource {
  /** An ONNX file, whose outputs are called `result.0` and so on. */
  readonly model: Uint8Array<ArrayBuffer>;
  readonly options: InferenceSession.SessionOptions;
  /** So many of its outputs are given back; those after them stay. */
  readonly outputs: number;
}

/** What can be asked of whoever has sessions. */
export interface Sessions {
  /** The number of a new session. */
  open(source: SessionSource): Promise<number>;
  run(
    session: number,
    feeds: Readonly<Record<string, Tensor | HeldTensor>>,
  ): Promise<(Tensor | HeldTensor)[]>;
  close(session: number): Promise<void>;
  /** A copy of a tensor in the machine's memory. */
  read(tensor: number): Promise<TensorData>;
  /** Frees a tensor. */
  drop(tensor: number): Promise<void>;
}

/** Those of this thread. */
export function createSessions(): Sessions {
  const sessions = new Map<number, { session: InferenceSession; outputs: number }>();
  const tensors = new Map<number, OrtTensor>();
  const find = <T>(what: string, among: ReadonlyMap<number, T>, number: number): T => {
    const found = among.get(number);
    if (found !== undefined) return found;
    throw new EspalierError(
      "runtime",
      `${what}: expected one that is still there, got one that was disposed of`,
    );
  };
  let count = 0;
  const hold = (tensor: OrtTensor): HeldTensor => {
    tensors.set(++count, tensor);
    return { dtype: tensor.type as DType, shape: tensor.dims, held: count };
  };
  return {
    open: async ({ model, options, outputs }) => {
      const session = await attempt("compile", () => InferenceSession.create(model, options));
      sessions.set(++count, { session, outputs });
      return count;
    },
    run: async (number, feeds) => {
      const { session, outputs } = find("program", sessions, number);
      const results = await attempt("run", () => {
        const given: Record<string, OrtTensor> = {};
        for (const [name, feed] of Object.entries(feeds)) {
          given[name] =
            "held" in feed
              ? find("tensor", tensors, feed.held)
              : new OrtTensor(feed.dtype, feed.data, feed.shape);
        }
        return session.run(given);
      });
      return session.outputNames.map((_, i) => {
        const result = results[`result.${i}`];
        return i < outputs ? fromOrt(result) : hold(result);
      });
    },
    close: async (number) => {
      await sessions.get(number)?.session.release();
      sessions.delete(number);
    },
    read: async (number) => (find("tensor", tensors, number).data as TensorData).slice(),
    drop: async (number) => {
      tensors.get(number)?.dispose();
      tensors.delete(number);
    },
  };
}

/** A result of ONNX Runtime, over the same memory. */
export function fromOrt({ data, dims, type }: OrtTensor): Tensor {
  return { dtype: type as Tensor["dtype"], shape: dims, data: data as TensorData };
}

export async function attempt<T>(action: "compile" | "run", work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (EspalierError.isInstance(error)) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new EspalierError("runtime", `ONNX Runtime could not ${action}: ${message}`, {}, error);
  }
}
