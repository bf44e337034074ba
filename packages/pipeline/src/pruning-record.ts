/** @file What pruning has made of a model, for whoever gets the model alone. */
import { join } from "node:path";
import { EspalierError, readJson } from "@espalier/base";
import type { GroupPlan, PlanRecord, SensitivityRecord } from "./records.ts";

/** A group of components: the numbers of those kept, replaced by implants and removed. */
export interface PrunedGroup {
  /** The weights that the components are rows of. */
  readonly layers: readonly string[];
  readonly components: number;
  readonly kept: readonly number[];
  readonly implanted: readonly number[];
  /** Of implants of attention heads: at which rank each of them attends. */
  readonly implantRank?: number | undefined;
  readonly removed: readonly number[];
  /** One for each component, unless the plan was given; null where an error is not known. */
  readonly scores?: readonly number[] | undefined;
  readonly standardErrors?: readonly (number | null)[] | undefined;
}

/** One step of pruning. Numbers of components are those of the model that the step began with. */
export interface PruningRound
  extends Pick<PlanRecord, "options" | "before" | "after">,
    Partial<Omit<SensitivityRecord, "groups">> {
  readonly groups: Readonly<Record<string, PrunedGroup>>;
}

/** The content of `pruning.json`, but for the SHA-256 of the files beside it. */
export interface PruningRecord {
  readonly source: { readonly name: string; readonly sha256: string };
  readonly data: string;
  readonly seed: number;
  readonly rounds: readonly PruningRound[];
}

/** A step of pruning from what was planned and, unless the plan was given, measured for it. */
export function pruningRound(
  { metric, options, before, after, groups }: PlanRecord,
  sensitivity: SensitivityRecord | undefined,
): PruningRound {
  const { groups: scored = [], ...measured } = sensitivity ?? {};
  const scores = new Map(scored.map((group) => [group.name, group]));
  return {
    metric,
    ...measured,
    options,
    before,
    after,
    groups: Object.fromEntries(
      Object.entries(groups).map(([name, plan]) => [
        name,
        {
          ...outcome(plan),
          scores: scores.get(name)?.scores,
          standardErrors: scores.get(name)?.standardErrors,
        },
      ]),
    ),
  };
}

function outcome({ layers, components, implant, implantRank, prune }: GroupPlan): PrunedGroup {
  const gone = new Set([...implant, ...prune]);
  const kept = Array.from({ length: components }, (_, i) => i).filter((i) => !gone.has(i));
  const rank = implantRank === undefined ? {} : { implantRank };
  return { layers, components, kept, implanted: implant, ...rank, removed: prune };
}

/**
 * The `pruning.json` of `directory`, an earlier export.
 *
 * @throws EspalierError `missing-file`, or `invalid-file` if it is none.
 */
export async function readPruning(directory: string): Promise<PruningRecord> {
  const path = join(directory, "pruning.json");
  const content = (await readJson(path)) as (PruningRecord & { files?: unknown }) | null;
  if (!Array.isArray(content?.rounds) || typeof content.source?.sha256 !== "string") {
    throw new EspalierError("invalid-file", `${path}: expected an object with source and rounds`, {
      path,
    });
  }
  // The files that it speaks of are others.
  const { files: _, ...record } = content;
  return record;
}
