/** @file Cells of a table: what is measured once, and by what it is known again. */
import { createHash } from "node:crypto";
import {
  defaultPruning,
  defaultTuning,
  type PruneSettings,
  type TuneSettings,
} from "@espalier/pipeline";
import { type MethodName, methods } from "./methods.ts";
import type { Preset, PresetName, Table, Training } from "./table.ts";

/** All that a result follows from, but for the machine and the version of the program. */
export interface CellInputs {
  readonly source: string;
  readonly sha256?: string | undefined;
  readonly training?: TuneSettings | undefined;
  readonly data: string;
  readonly images: Preset["images"];
  readonly settings: PruneSettings;
}

export interface Cell {
  readonly table: string;
  readonly preset: PresetName;
  readonly data: string;
  readonly method: MethodName;
  readonly keep: number;
  readonly seed: number;
  readonly inputs: CellInputs;
  /** Names its result and its run directory; ends in a hash of `inputs`. */
  readonly name: string;
}

/** JSON with keys in order, so that equal inputs have equal texts. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** The beginning of the SHA-256 of `value` as JSON. */
export function hashOf(value: unknown): string {
  return createHash("sha256").update(canonical(value)).digest("hex").slice(0, 12);
}

/** Nothing is held out, since nothing is chosen: results are those of the last epoch. */
export function tuningOf(training: Training): TuneSettings {
  return { ...defaultTuning, ...training, validation: 0, testEpochs: true };
}

function withEstimator(
  estimator: Preset["traceEstimator"],
  settings: PruneSettings,
): PruneSettings {
  const { sensitivity } = settings;
  if (estimator === undefined || sensitivity.metric !== "hessian-trace") return settings;
  return { ...settings, sensitivity: { ...sensitivity, estimator } };
}

/** The cells of a preset, the most telling first: all methods at one budget, other budgets, other seeds. */
export function cellsOf(table: Table, presetName: PresetName): Cell[] {
  const preset = table.presets[presetName];
  const cells: Cell[] = [];
  for (const seed of preset.seeds) {
    for (const keep of preset.keep) {
      for (const data of table.data) {
        for (const method of preset.methods ?? table.methods) {
          const base = defaultPruning({ of: table.budget, keep });
          const inputs: CellInputs = {
            source: preset.source,
            ...(preset.sha256 === undefined ? {} : { sha256: preset.sha256 }),
            ...(preset.training === undefined ? {} : { training: tuningOf(preset.training) }),
            data,
            images: preset.images,
            settings: withEstimator(
              preset.traceEstimator,
              methods[method].apply({
                ...base,
                sensitivity: {
                  ...base.sensitivity,
                  ...(table.kinds === undefined ? {} : { kinds: table.kinds }),
                  samples: preset.samples,
                },
                calibration: preset.calibration,
                tune: tuningOf(preset.tune),
                seed,
              }),
            ),
          };
          const words = [presetName, ...(table.data.length > 1 ? [data] : []), method, keep];
          const label = words.join("-").replace(/[^a-z0-9.]+/gi, "-");
          cells.push({
            ...{ table: table.name, preset: presetName, data, method, keep, seed, inputs },
            name: `${label}-seed${seed}-${hashOf(inputs)}`,
          });
        }
      }
    }
  }
  return cells;
}
