/** @file Plans: which components are kept, replaced by implants, or removed, under a budget. */
import { EspalierError } from "@espalier/base";
import { type AdditionPolicy, cost } from "@espalier/graph";
import {
  type ComponentGroup,
  type ComponentSelection,
  componentGroups,
  countComponents,
  type Decision,
  type Decisions,
  hasRank,
  implantRank,
  selectRows,
} from "./components.ts";
import type { Model, ModelGraph, Observed } from "./model.ts";
import type { GroupScores, Sensitivity } from "./sensitivity.ts";

/** What is to be reduced, and to which share of the model as it is. */
export interface Budget {
  readonly of: "components" | "parameters" | "macs" | "latency";
  /** Between 0 and 1. */
  readonly keep: number;
}

/** Milliseconds that a model takes on the machine in question, as measured there or predicted. */
export type LatencyOf = (model: Model) => number;

/**
 * Among what components compete. "global": all together (as HAP does). "kind": those of one kind, such
 * as attention heads, each kind losing the same share. "group": each group loses the same share.
 */
export type Scope = "global" | "kind" | "group";

export const scopes: readonly Scope[] = ["global", "kind", "group"];

/**
 * What components are ranked by. "score": their score alone (as HAP does). "score-per-saving": the score
 * divided by the parameters, multiply-accumulates or milliseconds that go with the component when its
 * turn comes; what reads or feeds it may have become smaller by then (decision 039). "score-per-cost":
 * divided by what goes with it while everything else is whole.
 */
export type RankBy = "score" | "score-per-saving" | "score-per-cost";

export const rankings: readonly RankBy[] = ["score", "score-per-saving", "score-per-cost"];

export interface PlanOptions {
  readonly budget: Budget;
  /**
   * Share of the components not kept that become implants, the most sensitive of each kind, to the nearest
   * block that widths are rounded to; kinds whose implants would save nothing have none.
   */
  readonly implant: number;
  /**
   * How many of a component's rows its implant has, where several make a component, as of attention
   * heads; default: a quarter.
   */
  readonly implantRank?: number | undefined;
  readonly scope: Scope;
  readonly rankBy: RankBy;
  /** Every group keeps at least this share of its components, and at least one. */
  readonly floor: number;
  /** Groups that can lose all their components, and a branch of the network with them, may do so. */
  readonly wholeBranches: boolean;
  /**
   * Kept widths become multiples of it, at least one, where the group's size allows. Runtimes compute
   * channels in blocks, so that other widths cost as much as the next multiple.
   */
  readonly roundTo: number;
}

export interface ModelSize {
  /** Trained numbers: statistics of normalisation do not count. */
  readonly parameters: number;
  /** Multiply-accumulates of one sample. */
  readonly macs: number;
}

/** What a plan starts from or leaves. */
export interface PlannedSize extends ModelSize {
  readonly components: number;
  /** Milliseconds, where the budget is of latency. */
  readonly latency?: number | undefined;
}

export interface Plan {
  readonly options: PlanOptions;
  readonly decisions: Decisions;
  readonly before: PlannedSize;
  /** Predicted by rebuilding the model. Components: kept and implanted. */
  readonly after: PlannedSize & { readonly implants: number };
}

// A budget is met if at most this share of the model's whole cost is left unused.
const TOLERANCE = 0.01;
// Of the whole: what a component that saves nothing counts as saving.
const LEAST_SAVING = 1e-9;
// Savings are measured anew after this share of the whole is gone. Smaller steps change little (decision 039).
const STALE_SAVING = 1 / 10;
// Each attempt to use up the rest of a budget rebuilds the model.
const FILL_ATTEMPTS = 200;

/** Parameters and multiply-accumulates of `model`, counted on its graph. */
export function sizeOfModel(model: Model): ModelSize {
  const { logits, parameters: values } = model.build(1, "evaluation");
  const trained = new Set(
    [...values].flatMap(([name, value]) =>
      model.parameters.get(name)!.kind === "statistic" ? [] : [value],
    ),
  );
  const { macs, parameters } = cost([logits], (value) => trained.has(value));
  return { macs, parameters };
}

/**
 * The plan that follows given decisions, whatever they were made by. Components that nothing reads any
 * more, since all that a layer after them made was given up, are given up as well.
 *
 * @param latencyOf Without it the plan says nothing of latency.
 */
export function describePlan(
  model: Model,
  groups: readonly ComponentGroup[],
  decisions: Decisions,
  options: PlanOptions,
  latencyOf?: LatencyOf,
): Plan {
  const components = countComponents(groups);
  const sizeOf = (of: Model) => ({
    ...sizeOfModel(of),
    ...(latencyOf === undefined ? {} : { latency: latencyOf(of) }),
  });
  const left = applyDecisions(model, groups, decisions, options);
  const all = new Map([...decisions, ...goneFrom(left, model, groups)]);
  return {
    options,
    decisions: all,
    before: { ...sizeOf(model), components },
    after: {
      ...sizeOf(left),
      components: components - countOf(all, "prune"),
      implants: countOf(all, "implant"),
    },
  };
}

/** The groups of `model` that may be given up as a whole and of which `left` has neither rows nor implants. */
function goneFrom(
  left: Model,
  model: Model,
  groups: readonly ComponentGroup[],
): [string, Decision[]][] {
  const { sites } = model.build(1, "evaluation");
  const layers = new Set([...left.build(1, "evaluation").sites.values()].map(({ layer }) => layer));
  const isLeft = (parameter: string) =>
    left.parameters.has(parameter) || layers.has(sites.get(parameter)?.layer ?? "");
  return groups
    .filter(({ rows, emptiable }) => emptiable && !rows.some(({ parameter }) => isLeft(parameter)))
    .map(({ name, count }) => [name, new Array<Decision>(count).fill("prune")]);
}

/** The least sensitive components that a group still has, given up together. */
interface Block {
  readonly group: ComponentGroup;
  readonly indices: readonly number[];
  /** What is lost with it. */
  readonly score: number;
}

export interface NewImplants {
  /** As in PlanOptions. */
  readonly implantRank?: number | undefined;
  /** What implants with a rank are fitted to; see `observeImplants`. */
  readonly observed?: Observed | undefined;
}

/** Applies `decisions`; the new implants start as `Model.prune` makes them. */
export function applyDecisions(
  model: Model,
  groups: readonly ComponentGroup[],
  decisions: Decisions,
  { implantRank, observed }: NewImplants = {},
): Model {
  const graph = model.build(1, "evaluation");
  return model.prune(selectRows(groups, decisions, graph, implantRank), observed);
}

/**
 * What a budget counts of a whole model.
 *
 * @param selection Which components count, of budgets of components; coupled "together" by default.
 * @throws EspalierError `invalid-argument` for latency without a way to tell it.
 */
export function costOf(
  model: Model,
  of: Budget["of"],
  latencyOf?: LatencyOf,
  { coupling = "together", ...selection }: ComponentSelection & { coupling?: AdditionPolicy } = {},
): number {
  switch (of) {
    case "components":
      return countComponents(componentGroups(model, coupling, selection));
    case "latency":
      if (latencyOf !== undefined) return latencyOf(model);
      throw new EspalierError(
        "invalid-argument",
        "keep-latency: expected a function that tells how long models take, got none",
      );
    default:
      return sizeOfModel(model)[of];
  }
}

/**
 * Decides what to do with every component so that the budget is met: the least sensitive components
 * are given up, in blocks of as many as widths are rounded to; the most sensitive of these get
 * implants.
 *
 * The cost of a decision is that of the model rebuilt with it. The number of blocks given up is found
 * by bisection; what whole blocks leave of the budget is filled up with the most sensitive ones that
 * still fit.
 *
 * @param latencyOf What budgets of latency are counted by; of others it is only noted in the plan.
 * @throws EspalierError `unreachable-budget`, saying what can be reached.
 */
export function makePlan(
  model: Model,
  sensitivity: Sensitivity,
  options: PlanOptions,
  latencyOf?: LatencyOf,
): Plan {
  const search = new PlanSearch(model, sensitivity, options, latencyOf);
  const plan = search.plan(options.budget.keep);
  if (plan !== undefined) return plan;
  throw unreachable(options, search.reachable);
}

/**
 * Refuses a budget that no scores could meet: what is left without any implants, and with all given up
 * that may be, still costs more.
 *
 * @throws EspalierError `unreachable-budget`, as `makePlan`.
 */
export function expectReachable(
  model: Model,
  groups: readonly ComponentGroup[],
  options: PlanOptions,
): void {
  const scored = groups.map((group) => ({ group, scores: new Float64Array(group.count) }));
  const { reachable } = new PlanSearch(
    model,
    { groups: scored },
    { ...options, implant: 0 },
    undefined,
  );
  if (reachable > options.budget.keep) throw unreachable(options, reachable);
}

function unreachable({ budget, floor, implant, roundTo }: PlanOptions, share: number) {
  return new EspalierError(
    "unreachable-budget",
    `keep-${budget.of} ${budget.keep}: at least ${share.toFixed(4)} has to be kept with floor ${floor}, implant share ${implant} and widths rounded to ${roundTo}`,
    { budget, reachable: share },
  );
}

/**
 * The plans that `makePlan` makes where other shares are to be kept of what the budget is about, for
 * those of `shares` that can be reached. Components are ranked once for all of them.
 */
export function makePlans(
  model: Model,
  sensitivity: Sensitivity,
  options: PlanOptions,
  shares: readonly number[],
  latencyOf?: LatencyOf,
): Plan[] {
  const search = new PlanSearch(model, sensitivity, options, latencyOf);
  return shares.flatMap((share) => search.plan(share) ?? []);
}

/** What the order of components follows from. */
interface Ranked {
  readonly groups: readonly Pick<GroupScores, "group" | "scores">[];
}

/** Finds plans for budgets that differ in the share to be kept alone. */
class PlanSearch {
  private readonly model: Model;
  private readonly options: PlanOptions;
  private readonly groups: readonly ComponentGroup[];
  private readonly graph: ModelGraph;
  private readonly latencyOf: LatencyOf | undefined;
  private readonly blocks: readonly Block[];
  /** What the model costs with the first blocks given up, by their number. */
  private readonly costs = new Map<number, number>();

  constructor(
    model: Model,
    sensitivity: Ranked,
    options: PlanOptions,
    latencyOf: LatencyOf | undefined,
  ) {
    this.groups = sensitivity.groups.map(({ group }) => group);
    checkOptions(options, this.groups);
    this.model = model;
    this.options = options;
    this.graph = model.build(1, "evaluation");
    this.latencyOf = latencyOf;
    this.blocks = rank(model, sensitivity, options, this.graph, latencyOf);
  }

  /** The smallest share that can be kept. */
  get reachable(): number {
    return this.costAfter(this.blocks.length) / this.costAfter(0);
  }

  /** The plan that keeps at most `share`; undefined if there is none. */
  plan(share: number): Plan | undefined {
    const whole = this.costAfter(0);
    const target = share * whole;
    if (this.costAfter(this.blocks.length) > target) return undefined;
    // The smallest number of blocks that meets the budget when given up.
    let [low, high] = [0, this.blocks.length];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.costAfter(middle) <= target) high = middle;
      else low = middle + 1;
    }
    let given = this.blocks.slice(0, low);
    let current = this.costAfter(low);
    // Some of them may be taken back, the most sensitive first; the last was needed.
    for (const block of given.slice(0, -1).reverse().slice(0, FILL_ATTEMPTS)) {
      if (target - current <= TOLERANCE * whole) break;
      // A group gives up its blocks in order.
      const rest = given.slice(given.indexOf(block) + 1);
      if (rest.some(({ group }) => group === block.group)) continue;
      const fewer = given.filter((other) => other !== block);
      const next = this.costOf(fewer);
      if (next <= target) [given, current] = [fewer, next];
    }
    const { budget } = this.options;
    const options = { ...this.options, budget: { ...budget, keep: share } };
    return describePlan(this.model, this.groups, this.decide(given), options, this.latencyOf);
  }

  private decide(given: readonly Block[]): Decisions {
    return decideBlocks(this.groups, given, this.options);
  }

  private costAfter(count: number): number {
    const known = this.costs.get(count) ?? this.costOf(this.blocks.slice(0, count));
    this.costs.set(count, known);
    return known;
  }

  private costOf(given: readonly Block[]): number {
    const { of } = this.options.budget;
    const decisions = this.decide(given);
    if (of === "components") return countOf(decisions, "keep");
    const { implantRank } = this.options;
    const left = this.model.prune(selectRows(this.groups, decisions, this.graph, implantRank));
    return costOf(left, of, this.latencyOf);
  }
}

function countOf(decisions: Decisions, wanted: Decision): number {
  return [...decisions.values()].flat().filter((decision) => decision === wanted).length;
}

/** The fewest components that `group` may keep. */
function floorOf(group: ComponentGroup, { floor, roundTo, wholeBranches }: PlanOptions): number {
  const { count, emptiable } = group;
  if (floor === 0 && wholeBranches && emptiable) return 0;
  return Math.min(count, Math.max(Math.ceil(floor * count), blockSize(group, roundTo)));
}

/** How many components have a multiple of `roundTo` rows, as few as possible. */
function blockSize({ span = 1 }: ComponentGroup, roundTo: number): number {
  let size = 1;
  while ((size * span) % roundTo !== 0) size++;
  return size;
}

function checkOptions(
  { budget, implant, implantRank: rank, floor, roundTo }: PlanOptions,
  groups: readonly ComponentGroup[],
): void {
  const share = (name: string, value: number, least: number) => {
    if (value >= least && value <= 1) return;
    throw new EspalierError(
      "invalid-argument",
      `${name}: expected a number from ${least} to 1, got ${value}`,
      {
        option: name,
        value,
      },
    );
  };
  share(`keep-${budget.of}`, budget.keep, 0);
  share("implant", implant, 0);
  share("floor", floor, 0);
  if (!Number.isInteger(roundTo) || roundTo < 1) {
    throw new EspalierError(
      "invalid-argument",
      `round-to: expected a positive whole number, got ${roundTo}`,
    );
  }
  expectImplantRank(groups, rank);
}

/**
 * @throws EspalierError `invalid-argument` if implants for components of `groups` cannot have the rank
 *   `rank`.
 */
export function expectImplantRank(
  groups: readonly ComponentGroup[],
  rank: number | undefined,
): void {
  if (rank === undefined) return;
  const ranked = groups.filter(hasRank);
  for (const group of ranked) implantRank(group, rank);
  if (ranked.length > 0) return;
  throw new EspalierError(
    "invalid-argument",
    "implant-rank: expected a model with attention heads, whose implants have a rank, got one without",
  );
}

/** The numbers of a group's components in the order in which it gives them up. */
export function leastSensitiveFirst(scores: ArrayLike<number>): number[] {
  return Array.from(scores, (_, i) => i).sort((a, b) => scores[a] - scores[b]);
}

/** The blocks that a group may give up, in order. */
function blocksOf({ group, scores }: Ranked["groups"][number], options: PlanOptions): Block[] {
  const { count } = group;
  const removable = count - floorOf(group, options);
  const size = blockSize(group, options.roundTo);
  const order = leastSensitiveFirst(scores);
  const own: Block[] = [];
  // The first block is smaller where that leaves a multiple.
  for (let start = 0, end = count % size || size; end <= removable; ) {
    const indices = order.slice(start, end);
    own.push({ group, indices, score: indices.reduce((sum, index) => sum + scores[index], 0) });
    [start, end] = [end, end + size];
  }
  return own;
}

/** The blocks of a group, of which the first have been given up. */
interface Queue {
  readonly blocks: readonly Block[];
  given: number;
  /** What each component of the next block saves. */
  saving: number;
}

/** All blocks that may be given up, the least sensitive first; those of a group are in order. */
function rank(
  model: Model,
  sensitivity: Ranked,
  options: PlanOptions,
  graph: ModelGraph,
  latencyOf: LatencyOf | undefined,
): Block[] {
  const { budget, rankBy, scope } = options;
  const groups = sensitivity.groups.map(({ group }) => group);
  const queues = sensitivity.groups.map(
    (scored): Queue => ({ blocks: blocksOf(scored, options), given: 0, saving: 1 }),
  );
  const decisions = keepAll(groups);
  const costNow = () =>
    costOf(model.prune(selectRows(groups, decisions, graph)), budget.of, latencyOf);
  const measureSavings = () => {
    const before = costNow();
    for (const queue of queues) {
      const next = queue.blocks[queue.given];
      if (next === undefined) continue;
      // Time goes in blocks.
      const indices = budget.of === "latency" ? next.indices : next.indices.slice(0, 1);
      decide(decisions, { group: next.group, indices }, "prune");
      queue.saving = Math.max(before - costNow(), whole * LEAST_SAVING) / indices.length;
      decide(decisions, { group: next.group, indices }, "keep");
    }
  };
  const counts = rankBy !== "score" && scope !== "group" && budget.of !== "components";
  const whole = counts ? costNow() : 0;
  if (counts) measureSavings();

  const next = competition(groups, scope);
  const order: Block[] = [];
  let saved = 0;
  for (let queue = next(queues); queue !== undefined; queue = next(queues)) {
    const block = queue.blocks[queue.given++];
    order.push(block);
    decide(decisions, block, "prune");
    saved += block.indices.length * queue.saving;
    if (counts && rankBy === "score-per-saving" && saved >= STALE_SAVING * whole) {
      measureSavings();
      saved = 0;
    }
  }
  return order;
}

/**
 * Tells which queue gives up its next block, if any has one: of the rivals by `scope` that of which the
 * least is gone then, and of its blocks the one that loses least for what it saves.
 */
function competition(groups: readonly ComponentGroup[], scope: Scope) {
  const rivalOf = ({ kind, name }: ComponentGroup) => ({ global: "all", kind, group: name })[scope];
  const totals = new Map<string, number>();
  const gone = new Map<string, number>();
  const add = (to: Map<string, number>, group: ComponentGroup, count: number) =>
    to.set(rivalOf(group), (to.get(rivalOf(group)) ?? 0) + count);
  for (const group of groups) add(totals, group, group.count);

  return (queues: readonly Queue[]): Queue | undefined => {
    const rivals = new Map<string, { queue: Queue; block: Block; score: number }>();
    for (const queue of queues) {
      const block = queue.blocks[queue.given];
      if (block === undefined) continue;
      const score = block.score / (block.indices.length * queue.saving);
      const rival = rivalOf(block.group);
      const leader = rivals.get(rival);
      if (leader === undefined || score < leader.score) rivals.set(rival, { queue, block, score });
    }
    const [first] = [...rivals]
      .map(([rival, { queue, block, score }]) => {
        const share = ((gone.get(rival) ?? 0) + block.indices.length) / totals.get(rival)!;
        return { queue, block, score, share };
      })
      .sort((a, b) => a.share - b.share || a.score - b.score);
    if (first !== undefined) add(gone, first.block.group, first.block.indices.length);
    return first?.queue;
  };
}

function keepAll(groups: readonly ComponentGroup[]): Map<string, Decision[]> {
  return new Map(groups.map(({ name, count }) => [name, new Array<Decision>(count).fill("keep")]));
}

function decide(
  decisions: ReadonlyMap<string, Decision[]>,
  { group, indices }: Pick<Block, "group" | "indices">,
  decision: Decision,
): void {
  for (const index of indices) decisions.get(group.name)![index] = decision;
}

/** Gives up `blocks`; the most sensitive of each kind become implants where these are smaller. */
function decideBlocks(
  groups: readonly ComponentGroup[],
  blocks: readonly Block[],
  { implant }: PlanOptions,
): Map<string, Decision[]> {
  const decisions = keepAll(groups);
  for (const block of blocks) decide(decisions, block, "prune");
  for (const kind of new Set(blocks.map(({ group }) => group.kind))) {
    const own = blocks.filter(({ group }) => group.kind === kind);
    const given = own.reduce((sum, { indices }) => sum + indices.length, 0);
    let implants = Math.round(implant * given);
    const candidates = new Set(own.reverse().filter(({ group }) => group.implantable));
    const take = (fits: (size: number) => boolean) => {
      for (const block of candidates) {
        if (!fits(block.indices.length)) continue;
        decide(decisions, block, "implant");
        candidates.delete(block);
        implants -= block.indices.length;
      }
    };
    take((size) => size <= implants);
    // Of few blocks, one too many may be nearer to the share than one too few.
    take((size) => size < 2 * implants);
  }
  return decisions;
}
