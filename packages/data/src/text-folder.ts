/** @file A folder of texts of one's own: `train.csv` and `val.csv` and the like, with text and label. */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { EspalierError, showNames } from "@espalier/base";
import type { Dataset } from "./dataset.ts";
import { findTables } from "./find-tables.ts";
import type { OpenOptions } from "./open-options.ts";
import {
  type LabelledText,
  type Labels,
  labelTexts,
  readTexts,
  type TextColumns,
  toNumber,
  wrongRow,
} from "./read-texts.ts";
import { textDataset } from "./text-dataset.ts";

// What the halves are called, in order of preference, as folders of images and Hugging Face call them.
const HALVES = { train: ["train"], test: ["val", "validation", "dev", "test"] } as const;
// One text, or two that belong together.
const TEXTS = [
  ["text"],
  ["sentence"],
  ["text", "text_pair"],
  ["text1", "text2"],
  ["sentence1", "sentence2"],
  ["premise", "hypothesis"],
  ["question", "sentence"],
  ["question1", "question2"],
] as const;
const LABEL = "label";
const MOST_CLASSES = 10_000;

/**
 * Opens a folder with tables `train` and `val` (or `validation`, `dev`, `test`): TSV without quotes, lines
 * of JSON, Parquet or CSV, of several the first in this order. Their columns are `text`, or a pair of
 * `sentence1` and `sentence2` or the like, and `label`: names of classes, which are sorted; numbers of
 * classes from 0 on; or, if some are no whole numbers, numbers to be predicted. Texts that are too long
 * are cut if the model's tokenizer says so, and refused otherwise.
 *
 * @throws EspalierError `missing-file`; `invalid-file` naming the file and the row that is wrong, and for
 *   fewer than two classes; `aborted`.
 */
export async function openTextFolder(
  directory: string,
  { signal }: OpenOptions = {},
): Promise<Dataset> {
  const find = (names: readonly string[]) => findTables(directory, names);
  const { texts: train, columns } = await readTexts(await find(HALVES.train), columnsOf, signal);
  const { texts: test } = await readTexts(await find(HALVES.test), columns, signal);
  const labels = readLabels(train, test);
  const { classes } = labels;
  const dataset = textDataset({
    name: basename(directory),
    classes,
    measures: classes.length === 1 ? ["pearson", "spearman"] : [],
    mostTokens: Number.POSITIVE_INFINITY,
    train: labelTexts(train, labels),
    test: labelTexts(test, labels),
  });
  return {
    ...dataset,
    // The names are the files', unlike those of published tasks.
    digest: async () => {
      const samples = await dataset.digest();
      return createHash("sha256")
        .update(JSON.stringify([classes, samples]))
        .digest("hex");
    },
  };
}

function columnsOf(names: readonly string[], path: string): TextColumns {
  const there = TEXTS.filter((columns) => columns.every((column) => names.includes(column)));
  // A pair has the columns of single texts among its own.
  const [texts, other] = there.filter(
    (some) => !there.some((more) => more !== some && isWithin(some, more)),
  );
  if (texts !== undefined && other === undefined && names.includes(LABEL)) {
    return { sentences: texts.map((column) => [column]), label: [LABEL] };
  }
  const known = TEXTS.map((columns) => columns.join(" and ")).join(", or ");
  throw new EspalierError(
    "invalid-file",
    `${path}: expected columns ${LABEL} and one of: ${known}; got ${showNames(names)}`,
    { path },
  );
}

const isWithin = (some: readonly string[], more: readonly string[]) =>
  some.every((column) => more.includes(column));

/** What the labels say that there is: those of `test` have no names of their own. */
function readLabels(train: readonly LabelledText[], test: readonly LabelledText[]): Labels {
  const unlabelled = train.find(({ label }) => nameOf(label) === undefined);
  if (unlabelled !== undefined) {
    throw wrongRow(unlabelled, "label: expected a name or a number, got none");
  }
  const isNumber = ({ label }: LabelledText) => toNumber(label) !== undefined;
  if (!train.some(isNumber)) {
    const classes = [...new Set(train.map(({ label }) => nameOf(label)!))].sort();
    const numbers = new Map(classes.map((name, i) => [name, i]));
    return expectClasses(train, { classes, numberOf: (label) => numbers.get(nameOf(label) ?? "") });
  }
  const odd = train.find((text) => !isNumber(text));
  if (odd !== undefined) {
    throw wrongRow(
      odd,
      `label: expected a number as elsewhere, got ${showNames([nameOf(odd.label)!])}`,
    );
  }
  const values = (texts: readonly LabelledText[]) => texts.map(({ label }) => toNumber(label) ?? 0);
  if (!values(train).every(Number.isInteger)) return { classes: [LABEL], numberOf: toNumber };
  const most = [...values(train), ...values(test)].reduce((a, b) => Math.max(a, Math.floor(b)), 0);
  const classes = Array.from({ length: Math.min(most, MOST_CLASSES) + 1 }, (_, i) => String(i));
  return expectClasses(train, {
    classes,
    numberOf: (label) => {
      const number = toNumber(label) ?? -1;
      return Number.isInteger(number) && number in classes ? number : undefined;
    },
  });
}

/** The name that `label` is; undefined for none, as in an empty field. */
function nameOf(label: unknown): string | undefined {
  const isName = ["string", "number", "boolean"].includes(typeof label);
  return (isName && String(label).trim()) || undefined;
}

function expectClasses([{ path }]: readonly LabelledText[], labels: Labels): Labels {
  const { length } = labels.classes;
  if (length > 1 && length <= MOST_CLASSES) return labels;
  throw new EspalierError(
    "invalid-file",
    `${path}: expected labels of 2 to ${MOST_CLASSES} classes, got ${length > 1 ? "more" : length}`,
    { path },
  );
}
