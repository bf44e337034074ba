/** @file Labelled texts from tables. */
import { EspalierError, show, showNames } from "@espalier/base";
import { readTable, type TableOptions } from "./read-table.ts";
import type { TextSplit } from "./text-samples.ts";

/** Which columns of a table mean what. */
export interface TextColumns extends TableOptions {
  /** The columns of the one or two sentences; several names where files of other origin have others. */
  readonly sentences: readonly (readonly string[])[];
  readonly label: readonly string[];
}

/** What the columns mean of a table that has them under these names. */
export type ColumnsOf = (names: readonly string[], path: string) => TextColumns;

/** A row of a table, its label as it is written there. */
export interface LabelledText {
  readonly sentences: readonly string[];
  readonly label: unknown;
  readonly path: string;
  /** From 1 on. */
  readonly row: number;
}

/**
 * The texts of all tables `paths`, and which columns they are from.
 *
 * @param columns May follow from the names of the first table's columns.
 * @throws EspalierError `missing-file`, `aborted`, or `invalid-file` naming the file and the row.
 */
export async function readTexts(
  paths: readonly string[],
  columns: TextColumns | ColumnsOf,
  signal: AbortSignal | undefined,
): Promise<{ readonly texts: readonly LabelledText[]; readonly columns: TextColumns }> {
  const texts: LabelledText[] = [];
  let known = typeof columns === "function" ? undefined : columns;
  for (const path of paths) {
    const rows = await readTable(path, known, signal);
    if (rows.length === 0) continue;
    known ??= (columns as ColumnsOf)(Object.keys(rows[0]), path);
    const { sentences, label } = known;
    for (const [i, row] of rows.entries()) {
      const fail = (what: string) => wrongRow({ path, row: i + 1 }, what);
      const field = (names: readonly string[]) => {
        const name = names.find((each) => row[each] !== undefined);
        if (name !== undefined) return row[name];
        const found = showNames(Object.keys(row));
        throw fail(`expected a column ${names.join(" or ")}, got ${found}`);
      };
      texts.push({
        sentences: sentences.map((names) => {
          const text = field(names);
          if (typeof text !== "string") throw fail(`expected text, got ${typeof text}`);
          return text;
        }),
        label: field(label),
        ...{ path, row: i + 1 },
      });
    }
  }
  if (texts.length === 0 || known === undefined) {
    const [path] = paths;
    throw new EspalierError("invalid-file", `${path}: expected rows, got none`, { path });
  }
  return { texts, columns: known };
}

/** What texts are labelled with. */
export interface Labels {
  /** Names of classes in the order of their numbers; one name for a number that is to be predicted. */
  readonly classes: readonly string[];
  /** The number that `label` stands for; undefined for none of them. */
  numberOf(label: unknown): number | undefined;
}

/** @throws EspalierError `invalid-file` for a label that is none of `labels`. */
export function labelTexts(
  texts: readonly LabelledText[],
  { classes, numberOf }: Labels,
): TextSplit {
  const expected = classes.length === 1 ? "a number" : showNames(classes, " or ");
  return {
    sentences: texts.map(({ sentences }) => sentences),
    labels: texts.map((text) => {
      const number = numberOf(text.label);
      if (number !== undefined) return number;
      throw wrongRow(text, `label: expected ${expected}, got ${show(text.label)}`);
    }),
  };
}

export function wrongRow(
  { path, row }: Pick<LabelledText, "path" | "row">,
  what: string,
): EspalierError {
  return new EspalierError("invalid-file", `${path}: row ${row}: ${what}`, { path, row });
}

const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;

/** A label as a number, if it is one or is written as one. */
export function toNumber(label: unknown): number | undefined {
  const isWritten = typeof label === "string" && NUMBER.test(label.trim());
  const value = isWritten || typeof label === "number" ? Number(label) : Number.NaN;
  return Number.isFinite(value) ? value : undefined;
}
