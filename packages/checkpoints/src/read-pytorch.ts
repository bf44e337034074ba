/** @file Reads what torch.save wrote. */
import { quote } from "@espalier/base";
import { type Checkpoint, DEFAULT_HEADER_BYTES, type ReadLimits } from "./checkpoint.ts";
import { gather, isContiguous, windowEnd } from "./gather.ts";
import type { PickledTensor } from "./pickled-tensor.ts";
import { openPytorch, type PytorchArchive } from "./pytorch-archive.ts";
import { SourceFile } from "./source-file.ts";
import { findStateDict } from "./state-dict.ts";
import { type CheckpointTensor, DTYPES, elementCount, elements } from "./tensor.ts";

/**
 * Reads the state dict of a PyTorch file (`.pt`, `.pth`, `.bin`, `.th`), in the zip format or in that
 * of PyTorch before 1.6. Nothing in the file is executed: a pickle that asks for anything but tensors
 * and plain data is refused.
 *
 * The state dict is found at the top or under `state_dict`, `model_state_dict`, `model` or `net`, and
 * loses a `module.` that begins all its names. Single values beside it become metadata.
 *
 * @throws EspalierError `missing-file` or `invalid-file`
 */
export function readPytorch(path: string, limits: ReadLimits = {}): Promise<Checkpoint> {
  return SourceFile.use(path, (file) => readPytorchFile(file, limits));
}

/** As `readPytorch`, of a file that is open. */
export async function readPytorchFile(
  file: SourceFile,
  { headerBytes = DEFAULT_HEADER_BYTES, tensorBytes = 64e6 + 4 * file.size }: ReadLimits,
): Promise<Checkpoint> {
  const archive = await openPytorch(file, headerBytes);
  const { tensors: pickled, scalars } = findStateDict(archive.root, file.fail);
  const load = tensorLoader(file, archive, tensorBytes);

  const tensors = new Map<string, CheckpointTensor>();
  for (const [name, tensor] of pickled) tensors.set(name, await load(name, tensor));
  const metadata: [string, string][] = [];
  for (const [name, value] of scalars) {
    const text = typeof value === "string" ? value : String(elements(await load(name, value))[0]);
    metadata.push([name, text]);
  }
  return {
    tensors,
    metadata: Object.fromEntries(metadata),
    format: archive.format,
    path: file.path,
  };
}

/** Loads tensors, and each storage once, so that tied tensors and views share memory. */
function tensorLoader(file: SourceFile, archive: PytorchArchive, tensorBytes: number) {
  const storages = new Map<string, Promise<Uint8Array>>();
  let total = 0;

  return async (name: string, tensor: PickledTensor): Promise<CheckpointTensor> => {
    const failTensor = (message: string) =>
      file.fail(`tensor ${quote(name)}: ${message}`, { tensor: name });
    const { storage, dtype, shape, offset } = tensor;
    const { bytes } = DTYPES[dtype];
    const count = elementCount(shape);
    if (count === undefined || windowEnd(tensor) * bytes > storage.bytes) {
      throw failTensor(
        `expected ${dtype} [${shape}] with strides [${tensor.strides}] from element ${offset} to lie in its storage of ${storage.bytes} bytes`,
      );
    }
    total += count * bytes;
    if (total > tensorBytes) {
      throw failTensor(`expected at most ${tensorBytes} bytes of tensors, got ${total} so far`);
    }
    if (count === 0) return { dtype, shape, data: new Uint8Array() };
    let loading = storages.get(storage.key);
    if (loading === undefined) {
      loading = archive.locate(storage).then((position) => file.read(position, storage.bytes));
      storages.set(storage.key, loading);
    }
    const memory = await loading;
    if (isContiguous(tensor)) {
      const data = memory.subarray(offset * bytes, (offset + count) * bytes);
      return { dtype, shape, data };
    }
    const data = file.allocate(count * bytes);
    gather(memory, data, bytes, tensor);
    return { dtype, shape, data };
  };
}
