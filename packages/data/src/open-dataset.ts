/** @file Opens a data set by name. */
import { EspalierError } from "@espalier/base";
import { openCifar10 } from "./cifar10.ts";
import { type Dataset, ofImages } from "./dataset.ts";
import { glueTasks, openGlue } from "./glue.ts";
import { openImageFolder } from "./image-folder.ts";
import type { OpenOptions } from "./open-options.ts";

interface Opener {
  /** How it is asked for. */
  readonly forms: readonly string[];
  open(directory: string | undefined, options: OpenOptions): Promise<Dataset> | undefined;
}

const imageFolder = async (directory: string, options: OpenOptions) =>
  ofImages(await openImageFolder(directory, options));

const openers: Readonly<Record<string, Opener>> = {
  cifar10: {
    forms: ["cifar10", "cifar10:DIRECTORY"],
    open: async (directory, options) => ofImages(await openCifar10(directory, options)),
  },
  imagefolder: {
    forms: ["imagefolder:DIRECTORY"],
    open: (directory, options) =>
      directory === undefined ? undefined : imageFolder(directory, options),
  },
  ...Object.fromEntries(
    Object.entries(glueTasks).map(([task, description]): [string, Opener] => [
      `glue/${task}`,
      {
        forms: [`glue/${task}:DIRECTORY`],
        open: (directory) =>
          directory === undefined ? undefined : openGlue(task, description, directory),
      },
    ]),
  ),
};

/**
 * Opens `cifar10`, downloaded and verified once and then cached, `cifar10:DIRECTORY`, files of your
 * own in that data set's format, `imagefolder:DIRECTORY`, images in ImageNet's layout, or a task of GLUE
 * such as `glue/sst2:DIRECTORY`.
 *
 * @throws EspalierError `invalid-argument` for an unknown name, `missing-file` or `invalid-file`
 * for a directory that lacks files or holds other content, `network` when no source can be reached,
 * `disk-full`, `aborted`.
 */
export async function openDataset(spec: string, options: OpenOptions = {}): Promise<Dataset> {
  const [, name, , directory] = /^([^:]*)(:(.*))?$/s.exec(spec)!;
  const opener = Object.hasOwn(openers, name) ? openers[name] : undefined;
  const opened = directory === "" ? undefined : opener?.open(directory, options);
  if (opened !== undefined) return opened;
  const known = Object.values(openers).flatMap(({ forms }) => forms);
  throw new EspalierError(
    "invalid-argument",
    `data set ${JSON.stringify(spec)}: expected ${known.join(", ")}`,
    { spec, known },
  );
}
