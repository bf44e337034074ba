/** @file Components: what is kept, replaced by an implant, or removed as one. */
import { EspalierError, quote, showNames } from "@espalier/base";
import {
  type AdditionPolicy,
  type CoupledParameter,
  coupleSlices,
  type Slice,
  topologicalOrder,
} from "@espalier/graph";
import type { ComponentKind, Model, ModelGraph, RowSelection, SelectedRow, Site } from "./model.ts";

/**
 * Components of one layer, or of layers that only lose channels together. Component i is row
 * `indices[i]` of each of `rows`, and whatever of the network goes with these rows; see `span`.
 */
export interface ComponentGroup {
  /** The name of the first of its layers. */
  readonly name: string;
  readonly kind: ComponentKind;
  readonly count: number;
  /** How many rows in a row an index stands for: rows index · span to (index + 1) · span - 1; default 1. */
  readonly span?: number | undefined;
  /** The weights and biases that make the components' outputs. */
  readonly rows: readonly { readonly parameter: string; readonly indices: readonly number[] }[];
  /** Whether an implant would be smaller than the component. */
  readonly implantable: boolean;
  /** Whether the components are implants already. */
  readonly implants: boolean;
  /** Whether all of them may be removed, and a branch of the network with them. */
  readonly emptiable: boolean;
}

export type Decision = "keep" | "implant" | "prune";

/** A decision for every component of every group, by the groups' names. */
export type Decisions = ReadonlyMap<string, readonly Decision[]>;

/** Which of a model's components are meant; all, if nothing is said. */
export interface ComponentSelection {
  /** Those of other kinds are not. */
  readonly kinds?: readonly ComponentKind[] | undefined;
  /**
   * Layers, or beginnings of their names such as "layer1", whose components are not. Layers that lose
   * channels together are kept together, and branches that have a kept layer stay.
   */
  readonly keepLayers?: readonly string[] | undefined;
}

/**
 * The removable components of `model`, found by following its channels through its graph.
 *
 * @param policy Whether residual branches lose channels "together" or "apart"; see AdditionPolicy.
 * @throws EspalierError `invalid-argument` for a layer to be kept that has no components, and if none are
 *   left to be removed.
 */
export function componentGroups(
  model: Model,
  policy: AdditionPolicy,
  selection: ComponentSelection = {},
): ComponentGroup[] {
  const graph = model.build(1, "evaluation");
  const parameters = coupledParameters(model, graph);
  const alone = lonelyChannels(graph, parameters);
  const groups = new Map<
    string,
    { parameters: readonly string[]; indices: number[][]; site: Site }
  >();
  for (const { slices, fixed } of coupleSlices([graph.logits], parameters, policy)) {
    const made = slices.filter((each) => makesOutputs(model, each));
    const lonely = made.map(({ parameter }) => alone.get(parameter)).find((site) => site?.rows);
    if (lonely?.rows !== undefined) {
      const parameters = lonely.rows;
      groups.set(parameters.join(), {
        parameters,
        indices: parameters.map(() => [0]),
        site: lonely,
      });
      continue;
    }
    const observed = made.find(({ parameter }) => graph.sites.has(parameter));
    if (fixed || observed === undefined) continue;
    const site = graph.sites.get(observed.parameter)!;
    const span = site.span ?? 1;
    // Where several rows make one channel, each weight has one row of them or an unbroken run. Groups
    // of a grouped convolution that move together have no order of their own, and are left whole.
    const firsts = made.filter(({ index }) => index % span === 0);
    const names = firsts.map(({ parameter }) => parameter);
    const runs = firsts.every(({ parameter, index: first }) =>
      made.every(
        ({ parameter: other, index }) =>
          other !== parameter || (index >= first && index < first + span),
      ),
    );
    if (new Set(names).size !== names.length || made.length !== names.length * span || !runs)
      continue;
    const key = names.join();
    const group = groups.get(key) ?? { parameters: names, indices: names.map(() => []), site };
    groups.set(key, group);
    firsts.forEach(({ index }, k) => {
      group.indices[k].push(index / span);
    });
  }
  const taken = new Map<string, number>();
  const all = [...groups.values()].map((group): ComponentGroup => {
    const first = group.parameters.find((name) => graph.sites.has(name)) ?? group.parameters[0];
    const layer = first.replace(/\.weight$/, "");
    // Parts of a layer that are coupled differently are told apart by a number.
    const repeats = taken.get(layer) ?? 0;
    taken.set(layer, repeats + 1);
    return {
      name: repeats === 0 ? layer : `${layer}#${repeats + 1}`,
      kind: group.site.kind ?? "channel",
      ...(group.site.span === undefined ? {} : { span: group.site.span }),
      count: group.indices[0].length,
      rows: group.parameters.map((parameter, k) => ({ parameter, indices: group.indices[k] })),
      implantable: group.parameters.some((name) => graph.implantable.has(name)),
      implants: group.parameters.some((name) => graph.implants.has(name)),
      emptiable: group.parameters.every(
        (name) => graph.emptiable.has(name) || !graph.sites.has(name),
      ),
    };
  });
  return select(model, graph, all, selection);
}

/** Those of `groups` that are meant. */
function select(
  model: Model,
  graph: ModelGraph,
  groups: readonly ComponentGroup[],
  { kinds, keepLayers = [] }: ComponentSelection,
): ComponentGroup[] {
  const ofKind = groups.filter(({ kind }) => kinds === undefined || kinds.includes(kind));
  if (keepLayers.length === 0) return ofKind;
  const kept = new Set<ComponentGroup>();
  for (const layer of keepLayers) {
    const found = groups.filter((group) => isOfLayer(group, layer));
    if (found.length === 0) throw unknownLayer(layer, groups);
    for (const group of found) kept.add(group);
  }
  const left = ofKind.filter((group) => !kept.has(group));
  if (left.length === 0 && ofKind.length > 0) {
    throw new EspalierError(
      "invalid-argument",
      `keep-layer: expected components that may be removed in other layers than ${keepLayers.map(quote).join(", ")}, found none`,
      { keepLayers },
    );
  }
  const weights = [...kept].flatMap(({ rows }) => rows.map(({ parameter }) => parameter));
  const takes = (group: ComponentGroup) => {
    const all = new Map([[group.name, new Array<Decision>(group.count).fill("prune")]]);
    const { parameters } = model.prune(selectRows(groups, all, graph));
    return weights.some((weight) => !parameters.has(weight));
  };
  return left.map((group) =>
    group.emptiable && takes(group) ? { ...group, emptiable: false } : group,
  );
}

function unknownLayer(layer: string, groups: readonly ComponentGroup[]): EspalierError {
  const layers = groups.flatMap(({ rows }) => rows.map(({ parameter }) => layerOf(parameter)));
  const known = [...new Set(layers)];
  return new EspalierError(
    "invalid-argument",
    `keep-layer ${quote(layer)}: expected a layer with removable components, or the beginning of its name, such as ${showNames(known)}`,
    { layer, known },
  );
}

const layerOf = (parameter: string) => parameter.replace(/\.(weight|bias)$/, "");

function isOfLayer({ name, rows }: ComponentGroup, layer: string): boolean {
  const names = [name, ...rows.map(({ parameter }) => layerOf(parameter))];
  return names.some((each) => each === layer || each.startsWith(`${layer}.`));
}

/** The parameters that something reads. */
function coupledParameters(model: Model, graph: ModelGraph): Map<string, CoupledParameter> {
  const used = new Set(topologicalOrder([graph.logits]));
  const parameters = new Map<string, CoupledParameter>();
  for (const [name, value] of graph.parameters) {
    if (!used.has(value)) continue;
    parameters.set(name, { value, producesRows: model.parameters.get(name)!.kind === "weight" });
  }
  return parameters;
}

function makesOutputs(model: Model, { parameter, axis }: Slice): boolean {
  const { kind } = model.parameters.get(parameter)!;
  return axis === 0 && (kind === "weight" || kind === "bias");
}

/** A weight that reads components, and the column that reads each of them. */
export interface Reader {
  readonly parameter: string;
  readonly columns: readonly number[];
}

/**
 * All weights that read the components of a group, for groups whose components are read by one column of
 * each of the same weights, and by nothing else that stays: where branches lose channels together.
 */
export function readersOf(
  model: Model,
  groups: readonly ComponentGroup[],
): ReadonlyMap<ComponentGroup, readonly Reader[]> {
  const graph = model.build(1, "evaluation");
  const coupled = new Map<string, readonly Slice[]>();
  const rowOf = (parameter: string, index: number) => `${parameter} ${index}`;
  for (const { slices, fixed } of coupleSlices([graph.logits], coupledParameters(model, graph))) {
    if (fixed) continue;
    for (const { parameter, axis, index } of slices) {
      if (axis === 0) coupled.set(rowOf(parameter, index), slices);
    }
  }
  const found = new Map<ComponentGroup, readonly Reader[]>();
  for (const group of groups) {
    const { rows, count, span = 1 } = group;
    const readers = new Map<string, number[]>();
    const isComplete = Array.from({ length: count }, (_, i) => {
      const slices = coupled.get(rowOf(rows[0].parameter, rows[0].indices[i])) ?? [];
      const own = new Set(rows.map(({ parameter, indices }) => rowOf(parameter, indices[i])));
      const made = slices.filter((each) => makesOutputs(model, each));
      const read = slices.filter(
        ({ parameter, axis }) => axis === 1 && model.parameters.get(parameter)!.kind === "weight",
      );
      for (const { parameter, index } of read) {
        readers.set(parameter, [...(readers.get(parameter) ?? []), index]);
      }
      return (
        read.length > 0 &&
        made.length === own.size &&
        made.every(({ parameter, index }) => own.has(rowOf(parameter, index)))
      );
    });
    const columns = [...readers].map(([parameter, indices]) => ({ parameter, columns: indices }));
    const isEven = columns.every(({ columns: each }) => each.length === count);
    if (span === 1 && isComplete.every(Boolean) && isEven) found.set(group, columns);
  }
  return found;
}

/**
 * The sites of which several rows make the only channel, by the parameters that have these rows. The
 * axis of the channels has one index there, from which coupling learns nothing.
 */
function lonelyChannels(
  graph: ModelGraph,
  used: ReadonlyMap<string, CoupledParameter>,
): Map<string, Site> {
  return new Map(
    [...graph.sites].flatMap(([name, site]) =>
      site.channels.length === 1 && used.has(name)
        ? (site.rows ?? []).map((parameter): [string, Site] => [parameter, site])
        : [],
    ),
  );
}

/** Components of all groups. */
export function countComponents(groups: readonly ComponentGroup[]): number {
  return groups.reduce((sum, { count }) => sum + count, 0);
}

/** The rows of parameters that make the components: an entry for each of those in a row. */
export function singleRows({
  rows,
  span = 1,
}: ComponentGroup): { readonly parameter: string; readonly indices: readonly number[] }[] {
  return rows.flatMap(({ parameter, indices }) =>
    Array.from({ length: span }, (_, i) => ({
      parameter,
      indices: indices.map((index) => index * span + i),
    })),
  );
}

/** The names of all parameters with rows of `groups`, once each. */
export function parametersOf(groups: readonly ComponentGroup[]): string[] {
  return [...new Set(groups.flatMap(({ rows }) => rows.map(({ parameter }) => parameter)))];
}

/**
 * Where a component's output can be switched off: sites of the graph and the channels in them. What
 * reaches the logits through other sites of the component alone, as the input of a depthwise
 * convolution does, is switched off with these.
 */
export function sitesOf(
  group: ComponentGroup,
  graph: ModelGraph,
): { readonly site: string; readonly channels: readonly number[] }[] {
  const values = group.rows.flatMap(({ parameter }) => graph.sites.get(parameter)?.value ?? []);
  const last = new Set(topologicalOrder([graph.logits], new Set(values)));
  return group.rows.flatMap(({ parameter, indices }) => {
    const site = graph.sites.get(parameter);
    return site === undefined || !last.has(site.value)
      ? []
      : [{ site: parameter, channels: indices.map((index) => site.offset + index) }];
  });
}

// Of the rows of a component, the share that its implant has when nothing is said.
const IMPLANT_SHARE = 1 / 4;

/**
 * How many rows an implant for a component of `group` has, where several rows make a component.
 *
 * @param rank As asked for; default: a quarter of the component's.
 * @throws EspalierError `invalid-argument` if that would be no less than the component has.
 */
export function implantRank({ name, span = 1 }: ComponentGroup, rank?: number): number {
  const rows = rank ?? Math.max(1, Math.floor(span * IMPLANT_SHARE));
  if (Number.isInteger(rows) && rows >= 1 && rows < span) return rows;
  throw new EspalierError(
    "invalid-argument",
    `implant-rank: expected a whole number from 1 to ${span - 1}, as the components of ${name} have ${span} rows, got ${rows}`,
    { group: name, rank: rows },
  );
}

/** Whether implants for components of `group` can have different ranks. */
export function hasRank({ implantable, span = 1 }: ComponentGroup): boolean {
  return implantable && span > 1;
}

/**
 * The rows that `decisions` leave, in the order in which all layers of a group hold them: whole
 * rows first, then new implants, then old ones.
 *
 * @param rank Of new implants, see `implantRank`.
 */
export function selectRows(
  groups: readonly ComponentGroup[],
  decisions: Decisions,
  graph: ModelGraph,
  rank?: number,
): RowSelection {
  const entries = new Map<string, { place: number; selected: SelectedRow }[]>();
  for (const group of groups) {
    const decided = decisions.get(group.name) ?? new Array<Decision>(group.count).fill("keep");
    for (const { parameter, indices } of group.rows) {
      if (!graph.sites.has(parameter)) continue;
      const list = entries.get(parameter) ?? [];
      entries.set(parameter, list);
      indices.forEach((row, i) => {
        if (decided[i] === "prune") return;
        const place = group.implants ? 2 : decided[i] === "implant" ? 1 : 0;
        const implant = place === 1 && graph.implantable.has(parameter);
        const ranked = implant && hasRank(group) ? { rank: implantRank(group, rank) } : {};
        list.push({ place, selected: { row, implant, ...ranked } });
      });
    }
  }
  return new Map(
    [...entries].map(([parameter, list]) => [
      parameter,
      list
        .sort((a, b) => a.place - b.place || a.selected.row - b.selected.row)
        .map(({ selected }) => selected),
    ]),
  );
}
