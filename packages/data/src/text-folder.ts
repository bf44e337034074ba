/** @file A folder of texts of one's own: `train.csv` and `val.csv` and the like, with text and label. */
import { basename } from "node:path";
import { EspalierError } from "@espalier/base";
import type { Dataset } from "./dataset.ts";
import { findTables } from "./find-tables.ts";
import type { OpenOptions } from "./open-options.ts";
import { type LabelledText, type Labels, labelTexts, readTexts, toNumber } from "./read-texts.ts";
import { textDataset } from "./text-dataset.ts";

// What the halves are called, in order of preference, as folders of images and Hugging Face call them.
const HALVES = { train: ["train"], test: ["val", "validation", "dev", "test"] } as const;
// One text, or two that belong together.
const TEXTS = [
  ["text"],
  ["sentence"],
  ["text1", "text2"],
  ["sentence1", "sentence2"],
  ["premise", "hypothesis"],
] as const;
const LABEL = "label";
const MOST_CLASSES = 10_000;

/**
 * Opens a folder with tables `train` and `val` (or `validation`, `dev`, `test`): CSV, TSV without quotes,
 * lines of JSON, or Parquet. Their columns are `text`, or a pair of `sentence1` and `sentence2` or the
 * like, and `label`: names of classes, which are put in the order of their code points; numbers of
 * classes from 0 on; or, if some are no whole numbers, numbers to be predicted. Texts are cut to what the
 * model takes.
 *
 * @throws EspalierError `missing-file`; `invalid-file` naming the file and the row that is wrong, and for
 *   fewer than two classes; `aborted`.
 */
export async function openTextFolder(
  directory: string,
  { signal }: OpenOptions = {},
): Promise<Dataset> {
  const read = async (names: readonly string[]) =>
    readTexts(await findTables(directory, names), columnsOf, signal);
  const train = await read(HALVES.train);
  const labels = labelsOf(train);
  return textDataset({
    name: basename(directory),
    classes: labels.classes,
    measures: labels.classes.length === 1 ? ["pearson", "spearman"] : [],
    mostTokens: Number.POSITIVE_INFINITY,
    train: labelTexts(train, labels),
    test: labelTexts(await read(HALVES.test), labels),
  });
}

function columnsOf(names: readonly string[], path: string) {
  const texts = TEXTS.find((columns) => columns.every((column) => names.includes(column)));
  if (texts !== undefined && names.includes(LABEL)) {
    return { sentences: texts.map((column) => [column]), label: [LABEL] };
  }
  const known = TEXTS.map((columns) => columns.join(" and ")).join(", or ");
  const found = names.slice(0, 8).join(", ");
  throw new EspalierError(
    "invalid-file",
    `${path}: expected columns ${LABEL} and ${known}, got ${found}`,
    { path },
  );
}

/** What the labels of `texts` say that there is. */
function labelsOf(texts: readonly LabelledText[]): Labels {
  const numbers = texts.map(({ label }) => toNumber(label));
  if (numbers.every((number) => number !== undefined)) {
    if (!numbers.every(Number.isInteger)) return { classes: [LABEL], numberOf: toNumber };
    const most = numbers.reduce((a, b) => Math.max(a, b), 0);
    const classes = Array.from({ length: Math.min(most, MOST_CLASSES) + 1 }, (_, i) => String(i));
    return expectClasses(texts, {
      classes,
      numberOf: (label) => {
        const number = toNumber(label) ?? -1;
        return Number.isInteger(number) && number in classes ? number : undefined;
      },
    });
  }
  const names = texts.map(({ label }) => nameOf(label)).filter((name) => name !== undefined);
  const classes = [...new Set(names)].sort();
  const numberByName = new Map(classes.map((name, i) => [name, i]));
  return expectClasses(texts, {
    classes,
    numberOf: (label) => numberByName.get(nameOf(label) ?? ""),
  });
}

/** The name that `label` is; undefined for none, as in an empty field. */
function nameOf(label: unknown): string | undefined {
  const isName = ["string", "number", "boolean"].includes(typeof label);
  return isName && label !== "" ? String(label) : undefined;
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
