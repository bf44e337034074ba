/** @file Opens a data set by name. */
import { EspalierError } from "@espalier/base";
import { openCifar10 } from "./cifar10.ts";
import type { ImageDataset } from "./image-dataset.ts";
import type { OpenOptions } from "./open-options.ts";

const openers = new Map<
  string,
  (directory: string | undefined, options: OpenOptions) => Promise<ImageDataset>
>([["cifar10", openCifar10]]);

/**
 * Opens `NAME`, downloaded and verified once and then cached, or `NAME:DIRECTORY`, files of your
 * own in the data set's format. Known names: `cifar10`.
 *
 * @throws EspalierError `invalid-argument` for an unknown name, `missing-file` or `invalid-file`
 * for a directory that lacks files or holds other content, `network` when no source can be reached,
 * `disk-full`, `aborted`.
 */
export async function openDataset(spec: string, options: OpenOptions = {}): Promise<ImageDataset> {
  const [, name, , directory] = /^([^:]*)(:(.*))?$/s.exec(spec)!;
  const open = openers.get(name!);
  if (open === undefined || directory === "") {
    const known = [...openers.keys()].map((each) => `${each} or ${each}:DIRECTORY`).join(", ");
    throw new EspalierError(
      "invalid-argument",
      `data set ${JSON.stringify(spec)}: expected ${known}`,
      { spec, known: [...openers.keys()] },
    );
  }
  return open(directory, options);
}
