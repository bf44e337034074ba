/** @file Reads a checkpoint of any known format. */
import type { Checkpoint, ReadLimits } from "./checkpoint.ts";
import { readPytorchFile } from "./read-pytorch.ts";
import { isSafetensors, readSafetensorsFile } from "./read-safetensors.ts";
import { SourceFile } from "./source-file.ts";

/**
 * Reads a safetensors or PyTorch file, told apart by its first bytes and never by its name; see
 * `readSafetensors` and `readPytorch`.
 *
 * @throws EspalierError `missing-file` or `invalid-file`
 */
export function readCheckpoint(path: string, limits: ReadLimits = {}): Promise<Checkpoint> {
  return SourceFile.use(path, async (file) => {
    const read = (await isSafetensors(file)) ? readSafetensorsFile : readPytorchFile;
    return await read(file, limits);
  });
}
