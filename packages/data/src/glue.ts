/** @file GLUE (Wang et al. 2019, arXiv 1804.07461): sentences, and pairs of them, to be classified. */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describeFileError, EspalierError } from "@espalier/base";
import type { Measure, Preprocessing } from "@espalier/core";
import { type Dataset, expectKind } from "./dataset.ts";
import type { OpenOptions } from "./open-options.ts";
import { readTable, type TableOptions, tableEndings } from "./read-table.ts";
import { type TextSplit, textSamples } from "./text-samples.ts";

/** A task of GLUE: which columns of its files mean what. */
export interface GlueTask extends TableOptions {
  /** The folder of the published archive. */
  readonly folder: string;
  /** The columns of the one or two sentences; several names where files of other origin have others. */
  readonly sentences: readonly (readonly string[])[];
  readonly label: readonly string[];
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
  const train = await readSplit(await findHalf(found, HALVES.train), task, signal);
  const test = await readSplit(await findHalf(found, HALVES.test), task, signal);
  const samples = (half: keyof typeof HALVES, split: TextSplit, preprocessing: Preprocessing) => {
    const input = expectKind("text", `glue/${name}`, preprocessing);
    return textSamples(split, input, MOST_TOKENS, `glue/${name}: ${half}`);
  };
  return {
    name: `glue/${name}`,
    classes: task.classes,
    objective: task.classes.length === 1 ? "regression" : "classification",
    measures: task.measures,
    verified: false,
    counts: { train: train.labels.length, test: test.labels.length },
    digest: async () => {
      const hash = createHash("sha256");
      for (const { sentences, labels } of [train, test]) {
        hash.update(`${labels.length}\n`);
        for (const [i, label] of labels.entries()) {
          hash.update(`${JSON.stringify([sentences[i], label])}\n`);
        }
      }
      return hash.digest("hex");
    },
    train: (preprocessing) => samples("train", train, preprocessing),
    test: (preprocessing) => samples("test", test, preprocessing),
  };
}

async function list(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    throw describeFileError(error, directory, "read");
  });
  return names.sort();
}

async function findFolder(directory: string, folders: readonly string[]): Promise<string> {
  const entries = await list(directory);
  const folder = folders.find((each) => entries.includes(each));
  return folder === undefined ? directory : join(directory, folder);
}

/** The files of one half: one, or all parts of one that was published in parts. */
async function findHalf(directory: string, names: readonly string[]): Promise<string[]> {
  const entries = await list(directory);
  for (const name of names) {
    for (const ending of tableEndings) {
      if (entries.includes(name + ending)) return [join(directory, name + ending)];
      const parts = entries.flatMap((entry) => {
        const match = entry.startsWith(`${name}-`) && entry.endsWith(ending);
        const [, count] = (match && /^-\d+-of-(\d+)\./.exec(entry.slice(name.length))) || [];
        return count === undefined ? [] : [{ path: join(directory, entry), count: Number(count) }];
      });
      if (parts.length === 0) continue;
      if (parts.every(({ count }) => count === parts.length)) return parts.map(({ path }) => path);
      throw new EspalierError(
        "missing-file",
        `${directory}: expected all parts of ${name}${ending}, ${parts[0].count} by the name of the first, got ${parts.length}`,
        { path: directory },
      );
    }
  }
  throw new EspalierError(
    "missing-file",
    `${directory}: expected ${names.join(" or ")} with one of the endings ${tableEndings.join(", ")}`,
    { path: directory },
  );
}

async function readSplit(
  paths: readonly string[],
  task: GlueTask,
  signal: AbortSignal | undefined,
): Promise<TextSplit> {
  const sentences: string[][] = [];
  const labels: number[] = [];
  for (const path of paths) {
    const rows = await readTable(path, task, signal);
    rows.forEach((row, i) => {
      const fail = (what: string): never => {
        throw new EspalierError("invalid-file", `${path}: row ${i + 1}: ${what}`, {
          path,
          row: i + 1,
        });
      };
      const field = (names: readonly string[]) => {
        const name = names.find((each) => row[each] !== undefined);
        return name === undefined
          ? fail(
              `expected a column ${names.join(" or ")}, got ${Object.keys(row).slice(0, 8).join(", ")}`,
            )
          : row[name];
      };
      sentences.push(
        task.sentences.map((names) => {
          const text = field(names);
          return typeof text === "string" ? text : fail(`expected text, got ${typeof text}`);
        }),
      );
      labels.push(
        labelOf(field(task.label), task.classes) ?? fail(wrongLabel(field(task.label), task)),
      );
    });
  }
  if (labels.length === 0) {
    throw new EspalierError("invalid-file", `${paths[0]}: expected rows, got none`, {
      path: paths[0],
    });
  }
  return { sentences, labels };
}

function wrongLabel(label: unknown, { classes }: GlueTask): string {
  const expected = classes.length === 1 ? "a number" : classes.join(" or ");
  return `label: expected ${expected}, got ${String(label).slice(0, 40)}`;
}

/** A class by its name or number, or the number to be predicted. */
function labelOf(label: unknown, classes: readonly string[]): number | undefined {
  const written = typeof label === "string" && /^-?\d+(\.\d+)?$/.test(label);
  const value = written || ["number", "bigint"].includes(typeof label) ? Number(label) : Number.NaN;
  if (classes.length === 1) return Number.isFinite(value) ? value : undefined;
  const named = classes.indexOf(String(label));
  if (named >= 0) return named;
  return Number.isInteger(value) && value >= 0 && value < classes.length ? value : undefined;
}
