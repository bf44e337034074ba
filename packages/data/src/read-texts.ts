/** @file Labelled texts from tables. */
import { EspalierError } from "@espalier/base";
import { readTable, type TableOptions } from "./read-table.ts";
import type { TextSplit } from "./text-samples.ts";

/** Which columns of a table mean what. */
export interface TextColumns extends TableOptions {
  /** The columns of the one or two sentences; several names where files of other origin have others. */
  readonly sentences: readonly (readonly string[])[];
  readonly label: readonly string[];
}

/** A row of a table, its label as it is written there. */
export interface LabelledText {
  readonly sentences: readonly string[];
  readonly label: unknown;
  readonly path: string;
  /** From 1 on. */
  readonly row: number;
}

/**
 * The texts of all tables `paths`.
 *
 * @param columns May follow from the names of a table's columns.
 * @throws EspalierError `missing-file`, `aborted`, or `invalid-file` naming the file and the row.
 */
export async function readTexts(
  paths: readonly string[],
  columns: TextColumns | ((names: readonly string[], path: string) => TextColumns),
  signal: AbortSignal | undefined,
): Promise<LabelledText[]> {
  const texts: LabelledText[] = [];
  for (const path of paths) {
    const options = typeof columns === "function" ? {} : columns;
    const rows = await readTable(path, options, signal);
    if (rows.length === 0) continue;
    const { sentences, label } =
      typeof columns === "function" ? columns(Object.keys(rows[0]), path) : columns;
    for (const [i, row] of rows.entries()) {
      const fail = (what: string) => wrongRow({ path, row: i + 1 }, what);
      const field = (names: readonly string[]) => {
        const name = names.find((each) => row[each] !== undefined);
        if (name !== undefined) return row[name];
        const found = Object.keys(row).slice(0, 8).join(", ");
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
  if (texts.length === 0) {
    const [path] = paths;
    throw new EspalierError("invalid-file", `${path}: expected rows, got none`, { path });
  }
  return texts;
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
  const some = classes.length > 8 ? [...classes.slice(0, 8), "…"] : classes;
  const expected = classes.length === 1 ? "a number" : some.join(" or ");
  return {
    sentences: texts.map(({ sentences }) => sentences),
    labels: texts.map((text) => {
      const number = numberOf(text.label);
      if (number !== undefined) return number;
      const label = String(text.label).slice(0, 40);
      throw wrongRow(text, `label: expected ${expected}, got ${label}`);
    }),
  };
}

function wrongRow({ path, row }: Pick<LabelledText, "path" | "row">, what: string): EspalierError {
  return new EspalierError("invalid-file", `${path}: row ${row}: ${what}`, { path, row });
}

/** A label as a number, if it is one or is written as one. */
export function toNumber(label: unknown): number | undefined {
  const written = typeof label === "string" && /^-?\d+(\.\d+)?$/.test(label);
  const value = written || ["number", "bigint"].includes(typeof label) ? Number(label) : Number.NaN;
  return Number.isFinite(value) ? value : undefined;
}
