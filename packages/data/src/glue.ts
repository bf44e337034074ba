/** @file GLUE (Wang et al. 2019, arXiv 1804.07461): sentences, and pairs of them, to be classified. */
import { join } from "node:path";
import type { Measure } from "@espalier/core";
import type { Dataset } from "./dataset.ts";
import { findTables, listNames } from "./find-tables.ts";
import type { OpenOptions } from "./open-options.ts";
import { labelTexts, readTexts, type TextColumns, toNumber } from "./read-texts.ts";
import { textDataset } from "./text-dataset.ts";

/** A task of GLUE: which columns of its files mean what. */
export interface GlueTask extends TextColumns {
  /** The folder of the published archive. */
  readonly folder: string;
  /** In the order of their numbers; one name for a number that is to be predicted. */
  readonly classes: readonly string[];
  readonly measures: readonly Measure[];
}

const pair = [["sentence1"], ["sentence2"]];
const entailment = ["entailment", "not_entailment"];

/** The tasks by their names. Classes have the numbers that the Hugging Face copies of GLUE give them. */
export const glueTasks: Readonly<Record<string, GlueTask>> = {
  cola: {
    folder: "CoLA",
    // Its files have no header.
    header: ["source", "label", "mark", "sentence"],
    sentences: [["sentence"]],
    label: ["label"],
    classes: ["unacceptable", "acceptable"],
    measures: ["matthews"],
  },
  sst2: {
    folder: "SST-2",
    sentences: [["sentence"]],
    label: ["label"],
    classes: ["negative", "positive"],
    measures: [],
  },
  mrpc: {
    folder: "MRPC",
    sentences: [
      ["#1 String", "sentence1"],
      ["#2 String", "sentence2"],
    ],
    label: ["Quality", "label"],
    classes: ["not_equivalent", "equivalent"],
    measures: ["f1"],
  },
  stsb: {
    folder: "STS-B",
    sentences: pair,
    label: ["score", "label"],
    classes: ["similarity"],
    measures: ["pearson", "spearman"],
  },
  qqp: {
    folder: "QQP",
    sentences: [["question1"], ["question2"]],
    label: ["is_duplicate", "label"],
    classes: ["not_duplicate", "duplicate"],
    measures: ["f1"],
    // Some lines of the published file are broken in two.
    skipShort: true,
  },
  mnli: {
    folder: "MNLI",
    sentences: [
      ["sentence1", "premise"],
      ["sentence2", "hypothesis"],
    ],
    label: ["gold_label", "label"],
    classes: ["entailment", "neutral", "contradiction"],
    measures: [],
  },
  qnli: {
    folder: "QNLI",
    sentences: [["question"], ["sentence"]],
    label: ["label"],
    classes: entailment,
    measures: [],
  },
  rte: { folder: "RTE", sentences: pair, label: ["label"], classes: entailment, measures: [] },
  wnli: {
    folder: "WNLI",
    sentences: pair,
    label: ["label"],
    classes: ["not_entailment", "entailment"],
    measures: [],
  },
};

// What the halves are called. Test sets are published without labels.
const HALVES = {
  train: ["train"],
  test: ["dev", "validation", "dev_matched", "validation_matched"],
} as const;
// As GLUE's reference systems cut samples (`max_seq_length`).
const MOST_TOKENS = 128;

/**
 * Opens a task of GLUE from a folder with files such as `train.tsv` and `dev.tsv`, or `train.jsonl`, or
 * `train-00000-of-00001.parquet` and `validation-00000-of-00001.parquet`, or from the folder above it.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` naming the file and the row that is wrong,
 *   `aborted`.
 */
export async function openGlue(
  name: string,
  task: GlueTask,
  directory: string,
  { signal }: OpenOptions = {},
): Promise<Dataset> {
  const found = await findFolder(directory, [task.folder, name]);
  const { classes } = task;
  const read = async (names: readonly string[]) => {
    const { texts } = await readTexts(await findTables(found, names), task, signal);
    return labelTexts(texts, { classes, numberOf: (label) => numberOf(label, classes) });
  };
  return textDataset({
    name: `glue/${name}`,
    classes,
    measures: task.measures,
    mostTokens: MOST_TOKENS,
    train: await read(HALVES.train),
    test: await read(HALVES.test),
  });
}

async function findFolder(directory: string, folders: readonly string[]): Promise<string> {
  const entries = await listNames(directory);
  const folder = folders.find((each) => entries.includes(each));
  return folder === undefined ? directory : join(directory, folder);
}

/** A class by its name or number, or the number to be predicted. */
function numberOf(label: unknown, classes: readonly string[]): number | undefined {
  const value = toNumber(label);
  if (classes.length === 1) return value;
  const named = typeof label === "string" ? classes.indexOf(label) : -1;
  if (named >= 0) return named;
  const isClass = value !== undefined && Number.isInteger(value) && value in classes;
  return isClass ? value : undefined;
}
