/** @file Finds the model's tensors in what a training program saved. */
import { quote } from "@espalier/base";
import { isTensor, type PickledTensor } from "./pickled-tensor.ts";
import type { Fail } from "./source-file.ts";

export interface StateDict {
  readonly tensors: ReadonlyMap<string, PickledTensor>;
  /** Single values beside the tensors; a value that was saved as a tensor is one still. */
  readonly scalars: ReadonlyMap<string, string | PickledTensor>;
}

// As written by: PyTorch's ImageNet example, its tutorials, many others, and the CIFAR programs that
// descend from kuangliu/pytorch-cifar.
const WRAPPERS = ["state_dict", "model_state_dict", "model", "net"];

/** What torch.nn.DataParallel puts before every name. */
const PARALLEL_PREFIX = "module.";

/**
 * Accepts a dict of tensors, or a dict that has one under a usual name. Other things in either, such
 * as the state of an optimizer, are left out.
 */
export function findStateDict(root: unknown, fail: Fail): StateDict {
  if (!(root instanceof Map)) throw fail("expected a state dict, got something other than a dict");
  const wrapped = WRAPPERS.map((name) => root.get(name)).find(hasTensors);
  const tensors = tensorsOf(wrapped ?? root);
  if (tensors.length === 0) {
    const keys = [...root.keys()]
      .slice(0, 8)
      .map((key) => (typeof key === "string" ? quote(key) : "?"));
    throw fail(
      `expected tensors, or a dict of tensors under ${WRAPPERS.join(", ")}; got a dict with ${keys.join(", ") || "nothing"}`,
    );
  }
  const scalars = new Map<string, string | PickledTensor>(scalarsOf(root));
  if (wrapped !== undefined) {
    for (const [key, value] of tensorsOf(root)) {
      if (value.shape.every((size) => size === 1)) scalars.set(key, value);
    }
    for (const [key, value] of scalarsOf(wrapped)) scalars.set(key, value);
  }
  const isParallel = tensors.every(([name]) => name.startsWith(PARALLEL_PREFIX));
  const prefix = isParallel ? PARALLEL_PREFIX.length : 0;
  return { tensors: new Map(tensors.map(([name, value]) => [name.slice(prefix), value])), scalars };
}

type Dict = ReadonlyMap<unknown, unknown>;

function hasTensors(value: unknown): value is Dict {
  return value instanceof Map && tensorsOf(value).length > 0;
}

function tensorsOf(dict: Dict): [string, PickledTensor][] {
  return [...dict].filter(
    (item): item is [string, PickledTensor] => typeof item[0] === "string" && isTensor(item[1]),
  );
}

function scalarsOf(dict: Dict): [string, string][] {
  return [...dict].flatMap(([key, value]): [string, string][] =>
    typeof key === "string" && isScalar(value) ? [[key, String(value)]] : [],
  );
}

function isScalar(value: unknown): value is string | number | bigint | boolean {
  return ["string", "number", "bigint", "boolean"].includes(typeof value);
}
