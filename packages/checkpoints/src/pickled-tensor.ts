/** @file What the pickles of torch.save may name: tensors, their storages, and nothing else. */
import { quote } from "@espalier/base";
import type { Window } from "./gather.ts";
import type { PickleFunction, PickleRules } from "./pickle.ts";
import type { Fail } from "./source-file.ts";
import { type CheckpointDtype, DTYPE_NAMES, DTYPES, isSize } from "./tensor.ts";

/** A block of numbers that lies outside the pickle, under `key`. */
export interface PickledStorage {
  readonly kind: "storage";
  readonly key: string;
  readonly dtype: CheckpointDtype;
  readonly bytes: number;
}

/** A window on a storage. */
export interface PickledTensor extends Window {
  readonly kind: "tensor";
  readonly storage: PickledStorage;
  /** That of the storage, except for types that have no typed storage. */
  readonly dtype: CheckpointDtype;
}

/** What `torch.FloatStorage` or `torch.float32` stands for. */
interface PickledDtype {
  readonly kind: "dtype";
  readonly dtype: CheckpointDtype;
}

// All else that a pickle can make is an array, a Map, bytes or a scalar, none of which has a kind.
const kindOf = (value: unknown) => (value as { kind?: unknown } | null | undefined)?.kind;
const isStorage = (value: unknown): value is PickledStorage => kindOf(value) === "storage";
const isDtype = (value: unknown): value is PickledDtype => kindOf(value) === "dtype";
export const isTensor = (value: unknown): value is PickledTensor => kindOf(value) === "tensor";

/** Rules for one file, and the storages that its pickle has named so far. */
export function torchRules(): { rules: PickleRules; storages: Map<string, PickledStorage> } {
  const storages = new Map<string, PickledStorage>();
  return {
    rules: { globals, persistentLoad: (id, fail) => toStorage(id, storages, fail) },
    storages,
  };
}

// PyTorch tensors have at most 64 dimensions; a pickle could name one long list as the shape of many.
const MOST_DIMENSIONS = 64;

/** Arguments: storage, offset, size, stride, two that only training needs, and flags if any are set. */
const rebuildTensor: PickleFunction = ([storage, offset, shape, strides, , , flags], fail) => {
  if (!isStorage(storage)) throw fail("expected a tensor to have a storage");
  return toTensor(storage, storage.dtype, offset, shape, strides, flags, fail);
};

/** As above, with the type, for which there is no typed storage, before the flags. */
const rebuildTensorV3: PickleFunction = (args, fail) => {
  const [storage, offset, shape, strides, , , type, flags] = args;
  if (!isStorage(storage)) throw fail("expected a tensor to have a storage");
  if (!isDtype(type)) throw fail("expected a tensor to have a type");
  return toTensor(storage, type.dtype, offset, shape, strides, flags, fail);
};

/** Arguments: the tensor, then what only training needs. */
const rebuildParameter: PickleFunction = ([tensor], fail) => {
  if (!isTensor(tensor)) throw fail("expected a parameter to hold a tensor");
  return tensor;
};

/** Python 2 passes the items as a list of pairs; Python 3 sets them one by one. */
const orderedDict: PickleFunction = ([items = []], fail, spend) => {
  if (!Array.isArray(items)) throw fail("expected an OrderedDict of pairs");
  spend(items.length);
  const dict = new Map<unknown, unknown>();
  for (const item of items) {
    if (!Array.isArray(item) || item.length !== 2) throw fail("expected an OrderedDict of pairs");
    dict.set(item[0], item[1]);
  }
  return dict;
};

const torchSize: PickleFunction = ([sizes]) => sizes;

const globals: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["collections.OrderedDict", orderedDict],
  ["torch.Size", torchSize],
  ["torch._utils._rebuild_tensor", rebuildTensor],
  ["torch._utils._rebuild_tensor_v2", rebuildTensor],
  ["torch._utils._rebuild_tensor_v3", rebuildTensorV3],
  ["torch._utils._rebuild_parameter", rebuildParameter],
  ["torch._utils._rebuild_parameter_with_state", rebuildParameter],
  ["torch.storage.UntypedStorage", dtypeGlobal("U8")],
  ...DTYPE_NAMES.flatMap((name) =>
    DTYPES[name].torch.map((global) => [`torch.${global}`, dtypeGlobal(name)] as const),
  ),
]);

function dtypeGlobal(dtype: CheckpointDtype): PickledDtype {
  return { kind: "dtype", dtype };
}

function toTensor(
  storage: PickledStorage,
  dtype: CheckpointDtype,
  offset: unknown,
  shape: unknown,
  strides: unknown,
  flags: unknown,
  fail: Fail,
): PickledTensor {
  // The flags say that PyTorch negates or conjugates the numbers whenever it reads them.
  if (flags !== undefined) throw fail("expected a tensor to hold its numbers as they are");
  if (!isSize(offset) || !isSizes(shape) || !isSizes(strides) || shape.length !== strides.length) {
    throw fail("expected a tensor's offset, sizes and strides to be whole numbers, zero or more");
  }
  return { kind: "tensor", storage, dtype, offset, shape: [...shape], strides: [...strides] };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MOST_DIMENSIONS && value.every(isSize);
}

/** @param id The tuple ("storage", type, key, location, number of elements[, view]). */
function toStorage(id: unknown, storages: Map<string, PickledStorage>, fail: Fail): PickledStorage {
  const [kind, type, key, , count, view] = Array.isArray(id) ? id : [];
  if (kind !== "storage" || !isDtype(type) || typeof key !== "string" || !isSize(count)) {
    throw fail("expected the persistent id of a storage");
  }
  // PyTorch before 0.4 could save a part of a storage as a storage.
  if (view !== undefined && view !== null) {
    throw fail("expected a whole storage, got a part of one");
  }
  const { dtype } = type;
  const bytes = count * DTYPES[dtype].bytes;
  const storage: PickledStorage = { kind: "storage", key, dtype, bytes };
  // Empty storages of all types share one key.
  if (bytes === 0) return storage;
  const known = storages.get(key) ?? storage;
  if (known.dtype !== dtype || known.bytes !== bytes) {
    throw fail(`expected storage ${quote(key)} to have one type and size`);
  }
  storages.set(key, known);
  return known;
}
