/** @file Opens a data set by name. */
import { EspalierError } from "@espalier/base";
import { openCifar10 } from "./cifar10.ts";
import { type Dataset, ofImages } from "./dataset.ts";
import { glueTasks, openGlue } from "./glue.ts";
import { fetchFromHub } from "./hub.ts";
import { openImageFolder } from "./image-folder.ts";
import type { OpenOptions } from "./open-options.ts";
import { openTextFolder } from "./text-folder.ts";

interface Opener {
  /** How it is asked for. */
  readonly forms: readonly string[];
  open(directory: string | undefined, options: OpenOptions): Promise<Dataset> | undefined;
}

const imageFolder = async (directory: string, options: OpenOptions) =>
  ofImages(await openImageFolder(directory, options));

// The copy of GLUE that its authors point to.
const GLUE = "nyu-mll/glue";

/** The directory of a task of GLUE, fetched from the Hub where it is not cached. */
async function glueOfHub(task: string, options: OpenOptions): Promise<string> {
  const wanted = new RegExp(`^${task}/(train|validation|validation_matched)-[^/]*\\.parquet$`);
  const { directory } = await fetchFromHub(
    {
      type: "dataset",
      name: GLUE,
      choose: (files) => {
        const found = files.filter((file) => wanted.test(file));
        const halves = new Set(found.map((file) => wanted.exec(file)![1].slice(0, 5)));
        if (halves.size === 2) return found;
        throw new EspalierError(
          "missing-file",
          `${GLUE}: expected ${task}/train-*.parquet and ${task}/validation-*.parquet`,
          { name: GLUE, task },
        );
      },
    },
    options,
  );
  return directory;
}

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
  textfolder: {
    forms: ["textfolder:DIRECTORY"],
    open: (directory, options) =>
      directory === undefined ? undefined : openTextFolder(directory, options),
  },
  ...Object.fromEntries(
    Object.entries(glueTasks).map(([task, description]): [string, Opener] => [
      `glue/${task}`,
      {
        forms: [`glue/${task}`, `glue/${task}:DIRECTORY`],
        open: async (directory, options) =>
          openGlue(task, description, directory ?? (await glueOfHub(task, options)), options),
      },
    ]),
  ),
};

/**
 * Opens `cifar10`, downloaded and verified once and then cached, `cifar10:DIRECTORY`, files of your
 * own in that data set's format, `imagefolder:DIRECTORY`, images in ImageNet's layout,
 * `textfolder:DIRECTORY`, tables of texts and labels, or a task of GLUE such as `glue/sst2`, from the
 * Hub, or `glue/sst2:DIRECTORY`.
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
