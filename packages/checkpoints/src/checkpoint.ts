/** @file What reading gives, and the bounds it keeps to. */
import type { CheckpointTensor } from "./tensor.ts";

export interface Checkpoint {
  /** In the order of the file. */
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** Whatever else the file says in single values, such as the epoch or the accuracy. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly format: "safetensors" | "pytorch-zip" | "pytorch-legacy";
  readonly path: string;
}

/** A file that asks for more is refused before the memory is taken. */
export interface ReadLimits {
  /**
   * Longest header of a safetensors file, pickle or directory of a PyTorch file, in bytes.
   * Default 25 MB, as huggingface.js allows; that of a model of a billion parameters takes 0.1 MB.
   */
  readonly headerBytes?: number;
  /**
   * Most bytes of all tensors together. PyTorch files hold views: a few bytes can stand for a tensor
   * of any size. Default 64 MB and four times the size of the file.
   */
  readonly tensorBytes?: number;
}

export const DEFAULT_HEADER_BYTES = 25_000_000;
