/** @file Where in a graph components are switched off, and what comes back to there from the loss. */
import { topologicalOrder, type Value, vjp } from "@espalier/graph";
import { type ComponentGroup, type Reader, sitesOf } from "./components.ts";
import type { ModelGraph } from "./model.ts";

/** A value with channels that are components of a group, and the cotangent of it. */
export interface Place {
  /** What tells it from others. */
  readonly name: string;
  /** [batch, …]. */
  readonly value: Value;
  readonly cotangent: Value;
  /** Of the channels. */
  readonly axis: number;
  /** The channel of each component. */
  readonly columns: readonly number[];
}

/**
 * The places of each group: where its channels are read, since that is where pruning takes them from. What
 * lies between their layer and that, such as a normalisation after a sum, makes something even of nothing.
 * Of other components their sites.
 *
 * @param seed The cotangent of the logits.
 * @param readers As `readersOf` gives them.
 */
export function placesOf(
  graph: ModelGraph,
  groups: readonly ComponentGroup[],
  seed: Value,
  readers: ReadonlyMap<ComponentGroup, readonly Reader[]>,
): Place[][] {
  const operands = operandsOf(graph, readers);
  const isRead = groups.map((group) =>
    readers.get(group)?.every(({ parameter }) => operands.has(parameter)),
  );
  const sites = groups.map((group, i) => (isRead[i] ? [] : sitesOf(group, graph)));
  const reads = groups.map((group, i) => (isRead[i] ? readers.get(group)! : []));
  const values = [
    ...new Set([
      ...sites.flat().map(({ site }) => graph.sites.get(site)!.value),
      ...reads.flat().map(({ parameter }) => operands.get(parameter)!.user),
    ]),
  ];
  const cotangents = new Map(
    vjp([graph.logits], [seed], values).map((cotangent, i) => [values[i], cotangent]),
  );
  const readPlace = ({ parameter, columns }: Reader): Place => {
    const { user, position } = operands.get(parameter)!;
    const cotangent = user.operation.vjp!(user, cotangents.get(user)!)[position]!;
    const value = user.inputs[position];
    return { name: `read by ${parameter}`, value, cotangent, axis: 1, columns };
  };
  return groups.map((_, i) => [
    ...reads[i].map(readPlace),
    ...sites[i].map(({ site, channels }): Place => {
      const { value, axis = 1 } = graph.sites.get(site)!;
      return { name: site, value, cotangent: cotangents.get(value)!, axis, columns: channels };
    }),
  ]);
}

/** By weights: what is multiplied with each, where that is one value with channels on axis 1 as columns are. */
function operandsOf(
  graph: ModelGraph,
  readers: ReadonlyMap<ComponentGroup, readonly Reader[]>,
): Map<string, { readonly user: Value; readonly position: number }> {
  const users = new Map<Value, Value[]>();
  for (const user of topologicalOrder([graph.logits])) {
    for (const operand of user.inputs) users.set(operand, [...(users.get(operand) ?? []), user]);
  }
  const found = new Map<string, { readonly user: Value; readonly position: number }>();
  for (const { parameter } of [...readers.values()].flat()) {
    const weight = graph.parameters.get(parameter)!;
    const [user, ...others] = users.get(weight) ?? [];
    if (user === undefined || others.length > 0 || user.inputs.length !== 2) continue;
    const position = 1 - user.inputs.indexOf(weight);
    const { shape } = user.inputs[position];
    if (shape.length !== 3 && shape[1] === weight.shape[1])
      found.set(parameter, { user, position });
  }
  return found;
}
