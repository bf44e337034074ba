import { tinyResNet } from "@espalier/vision/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ComponentGroup, componentGroups, type Decision } from "./components.ts";
import type { Model } from "./model.ts";
import {
  applyDecisions,
  leastSensitiveFirst,
  makePlan,
  makePlans,
  type PlanOptions,
  rankings,
  sizeOfModel,
} from "./plan.ts";
import { Random } from "./random.ts";
import type { Sensitivity } from "./sensitivity.ts";

const model = tinyResNet({ widths: [16, 24, 32] });

function scored(
  of: Model,
  score: (group: ComponentGroup, index: number) => number,
  coupling: "together" | "apart" = "together",
): Sensitivity {
  return {
    metric: "random",
    temperature: 1,
    coupling,
    samples: 0,
    draws: 0,
    negative: 0,
    rankStability: 1,
    groups: componentGroups(of, coupling).map((group) => ({
      group,
      scores: Float64Array.from({ length: group.count }, (_, i) => score(group, i)),
      standardErrors: new Float64Array(group.count),
    })),
  };
}

const noise = new Random(1);
const sensitivity = scored(model, ({ name }, i) => noise.stream(name, i).normal());
const options = (changes: Partial<PlanOptions> = {}): PlanOptions => ({
  budget: { of: "macs", keep: 0.5 },
  implant: 0,
  scope: "global",
  rankBy: "score",
  floor: 0,
  wholeBranches: false,
  roundTo: 1,
  ...changes,
});

const count = (decisions: Iterable<readonly Decision[]>, wanted: Decision) =>
  [...decisions].flat().filter((decision) => decision === wanted).length;

describe("a budget", () => {
  test.each(["macs", "parameters", "components"] as const)(
    "of %s is met within 1 %%, from below",
    (of) => {
      for (const keep of [0.9, 0.6, 0.3]) {
        for (const implant of [0, 0.3]) {
          const plan = makePlan(model, sensitivity, options({ budget: { of, keep }, implant }));
          const after =
            of === "components" ? plan.after.components - plan.after.implants : plan.after[of];
          const share = after / plan.before[of];
          expect(share).toBeLessThanOrEqual(keep);
          expect(share).toBeGreaterThan(keep - 0.011);
        }
      }
    },
  );

  test("of latency is met by the function that tells it, and needs one", () => {
    // A machine that computes in blocks of 8 channels, and takes a while for every layer.
    const latencyOf = (of: Model) =>
      [...of.parameters.values()].reduce(
        (sum, { kind, shape: [rows, columns = 1] }) =>
          kind === "weight" ? sum + 5 + Math.ceil(rows / 8) * Math.ceil(columns / 8) : sum,
        0,
      );
    for (const rankBy of rankings) {
      const wanted = options({ budget: { of: "latency", keep: 0.8 }, rankBy, roundTo: 8 });
      const plan = makePlan(model, sensitivity, wanted, latencyOf);
      const groups = sensitivity.groups.map(({ group }) => group);
      const pruned = applyDecisions(model, groups, plan.decisions);
      expect(plan.before.latency).toBe(latencyOf(model));
      expect(plan.after.latency).toBe(latencyOf(pruned));
      expect(plan.after.latency! / plan.before.latency!).toBeLessThanOrEqual(0.8);
      expect(() => makePlan(model, sensitivity, wanted)).toThrow(
        /keep-latency: expected a function/,
      );
    }
  });

  test("predicts the size of the model that is built", () => {
    const plan = makePlan(model, sensitivity, options({ implant: 0.2 }));
    const groups = sensitivity.groups.map(({ group }) => group);
    const { macs, parameters } = sizeOfModel(applyDecisions(model, groups, plan.decisions));
    expect(plan.after).toMatchObject({ macs, parameters });
  });

  test("of everything changes nothing", () => {
    const plan = makePlan(model, sensitivity, options({ budget: { of: "macs", keep: 1 } }));
    expect(count(plan.decisions.values(), "keep")).toBe(plan.before.components);
    expect(plan.after).toMatchObject({
      macs: plan.before.macs,
      parameters: plan.before.parameters,
    });
  });

  test("that cannot be reached says what can", () => {
    const impossible = options({ budget: { of: "macs", keep: 0.2 }, floor: 0.9 });
    expect(() => makePlan(model, sensitivity, impossible)).toThrow(
      /keep-macs 0.2: at least 0\.[89]\d+ has to be kept with floor 0.9/,
    );
  });

  test.each([
    [
      { budget: { of: "macs", keep: 1.5 } as const },
      /keep-macs: expected a number from 0 to 1, got 1.5/,
    ],
    [{ implant: -1 }, /implant: expected a number from 0 to 1, got -1/],
    [{ floor: Number.NaN }, /floor/],
    [{ roundTo: 0 }, /round-to: expected a positive whole number, got 0/],
  ])("%j is refused", (changes, message) => {
    expect(() => makePlan(model, sensitivity, options(changes))).toThrow(message);
  });
});

describe("decisions", () => {
  test("every component is kept, implanted or removed, exactly one of them", () => {
    const plan = makePlan(model, sensitivity, options({ implant: 0.4 }));
    for (const { group } of sensitivity.groups) {
      expect(plan.decisions.get(group.name)).toHaveLength(group.count);
    }
    const { components, implants } = plan.after;
    const kept = components - implants;
    expect(count(plan.decisions.values(), "keep")).toBe(kept);
    expect(count(plan.decisions.values(), "implant")).toBe(implants);
    expect(count(plan.decisions.values(), "prune")).toBe(plan.before.components - components);
  });

  test("the least sensitive are removed, the most sensitive of the rest become implants", () => {
    const rising = scored(model, (_group, i) => i);
    const plan = makePlan(
      model,
      rising,
      options({ budget: { of: "components", keep: 0.5 }, implant: 0.5 }),
    );
    const scoresOf = (wanted: Decision) =>
      [...plan.decisions.values()].flatMap((list) =>
        list.flatMap((decision, i) => (decision === wanted ? [i] : [])),
      );
    expect(Math.max(...scoresOf("prune"))).toBeLessThanOrEqual(Math.min(...scoresOf("implant")));
    expect(Math.max(...scoresOf("implant"))).toBeLessThanOrEqual(Math.min(...scoresOf("keep")));
    expect(
      scoresOf("implant").length / (scoresOf("prune").length + scoresOf("implant").length),
    ).toBeCloseTo(0.5, 1);
  });

  test("the last component of a layer is its best, not its first", () => {
    // One layer matters so little that all of it would go.
    const doomed = "layer2.0.conv1";
    const lowest = scored(model, ({ name }, i) => (name === doomed ? i - 1000 : i));
    const plan = makePlan(model, lowest, options({ budget: { of: "components", keep: 0.7 } }));
    const kept = plan.decisions
      .get(doomed)!
      .flatMap((decision, i) => (decision === "keep" ? [i] : []));
    expect(kept).toEqual([23]);
  });

  test("floors leave every layer its share", () => {
    const plan = makePlan(
      model,
      sensitivity,
      options({ budget: { of: "components", keep: 0.4 }, floor: 0.25 }),
    );
    for (const { group } of sensitivity.groups) {
      const kept = count([plan.decisions.get(group.name)!], "keep");
      expect(kept).toBeGreaterThanOrEqual(Math.ceil(group.count / 4));
    }
  });

  test.each([0, 0.5])(
    "floors hold at widths of 16 to 256, for equal scores, with an implant share of %f",
    (implant) => {
      const wide = tinyResNet({ widths: [16, 48, 256] });
      const equal = scored(wide, () => 1);
      const keep = implant === 0 ? 0.054 : 0.06;
      const plan = makePlan(
        wide,
        equal,
        options({ budget: { of: "components", keep }, floor: 0.05, implant }),
      );
      for (const { group } of equal.groups) {
        const kept = count([plan.decisions.get(group.name)!], "keep");
        expect(kept).toBeGreaterThanOrEqual(Math.ceil(0.05 * group.count));
      }
    },
  );

  test("a layer is not protected because it is kept", () => {
    // The most sensitive layer keeps everything while others are cut, at any implant share.
    const proud = "layer3.0.conv1";
    const high = scored(model, ({ name }, i) => (name === proud ? 1000 + i : i));
    const plan = makePlan(
      model,
      high,
      options({ budget: { of: "components", keep: 0.5 }, implant: 0.1 }),
    );
    expect(count([plan.decisions.get(proud)!], "keep")).toBe(32);
  });

  test("widths are rounded to multiples where the group's size allows", () => {
    const plan = makePlan(model, sensitivity, options({ roundTo: 8 }));
    for (const list of plan.decisions.values()) expect(count([list], "keep") % 8).toBe(0);
    expect(plan.after.macs / plan.before.macs).toBeLessThanOrEqual(0.5);
  });

  test("within groups, each loses the same share", () => {
    const wild = scored(model, ({ name }, i) => name.length * 1000 + i);
    const plan = makePlan(
      model,
      wild,
      options({ budget: { of: "components", keep: 0.5 }, scope: "group" }),
    );
    for (const list of plan.decisions.values()) {
      expect(Math.abs(count([list], "keep") / list.length - 0.5)).toBeLessThan(0.1);
    }
  });

  test("components that cannot be removed are not in the ranking", () => {
    const names = sensitivity.groups.flatMap(({ group }) => group.rows.map((row) => row.parameter));
    expect(names).not.toContain("fc.weight");
    expect(names).not.toContain("fc.bias");
  });

  test("implants come in blocks, as many as are nearest to their share", () => {
    for (const implant of [0.1, 0.15, 0.2, 0.3, 0.5]) {
      const { decisions, after } = makePlan(
        model,
        sensitivity,
        options({ implant, roundTo: 8, scope: "kind" }),
      );
      const gone = count(decisions.values(), "prune") + after.implants;
      expect(after.implants % 8).toBe(0);
      expect(Math.abs(after.implants - implant * gone)).toBeLessThanOrEqual(4.5);
    }
  });

  test("implants go only where they are smaller", () => {
    const plan = makePlan(
      model,
      scored(model, () => 0, "apart"),
      options({ implant: 1 }),
    );
    for (const { group } of scored(model, () => 0, "apart").groups) {
      if (!/downsample/.test(group.name)) continue;
      expect(group.implantable).toBe(false);
      expect(count([plan.decisions.get(group.name)!], "implant")).toBe(0);
    }
    expect(plan.after.implants).toBeGreaterThan(0);
  });
});

describe("plans for several budgets", () => {
  test.each(["macs", "parameters", "components"] as const)(
    "of %s are those made one by one",
    (of) => {
      const common = options({ budget: { of, keep: 0.9 }, implant: 0.2, roundTo: 4 });
      const shares = [0.4, 0.8, 0.6, 1];
      const plans = makePlans(model, sensitivity, common, shares);
      expect(plans).toEqual(
        shares.map((keep) => makePlan(model, sensitivity, { ...common, budget: { of, keep } })),
      );
    },
  );

  test("leave out what cannot be reached", () => {
    const plans = makePlans(model, sensitivity, options({ floor: 0.5 }), [0.05, 0.9]);
    expect(plans.map(({ options }) => options.budget.keep)).toEqual([0.9]);
  });

  test("give up a group's components in order, and ties by number", () => {
    expect(leastSensitiveFirst(Float64Array.of(2, 0, 1, 0))).toEqual([1, 3, 2, 0]);
    const [plan] = makePlans(model, sensitivity, options(), [0.5]);
    for (const { group, scores } of sensitivity.groups) {
      const fates = leastSensitiveFirst(scores).map((i) => plan.decisions.get(group.name)![i]);
      expect(fates.indexOf("keep")).toBe(count([fates], "prune"));
    }
  });
});

describe("a model that was pruned before", () => {
  const prune = (of: Model, decisions: Readonly<Record<string, readonly Decision[]>>) =>
    applyDecisions(of, componentGroups(of, "together"), new Map(Object.entries(decisions)));
  const all = (group: ComponentGroup, decision: Decision) =>
    new Array<Decision>(group.count).fill(decision);
  const groupOf = (of: Model, name: string) =>
    componentGroups(of, "together").find((group) => group.name === name) ??
    expect.unreachable(name);

  test("loses the last channel of a branch as soon as that is worth least for its cost", () => {
    const [first, ...rest] = all(groupOf(model, "layer1.0.conv1"), "prune");
    const narrow = prune(model, { "layer1.0.conv1": ["keep" satisfies Decision, ...rest] });
    expect([first, groupOf(narrow, "layer1.0.conv1").count]).toEqual(["prune", 1]);
    const plan = makePlan(
      narrow,
      scored(narrow, ({ name }) => (name === "layer1.0.conv1" ? 1e-6 : 1)),
      options({
        rankBy: "score-per-cost",
        wholeBranches: true,
        budget: { of: "macs", keep: 0.98 },
      }),
    );
    expect(plan.decisions.get("layer1.0.conv1")).toEqual(["prune"]);
  });

  test("loses implants that are no more than a block", () => {
    const layer = groupOf(model, "layer1.0.conv1");
    const implanted = prune(model, { "layer1.0.conv1": all(layer, "implant") });
    const [implants] = componentGroups(implanted, "together").filter((group) => group.implants);
    expect([implants.count, implants.emptiable]).toEqual([16, true]);
    const plan = makePlan(
      implanted,
      scored(implanted, ({ name }) => (name === implants.name ? -1 : 1)),
      options({ roundTo: 16, wholeBranches: true, budget: { of: "macs", keep: 0.95 } }),
    );
    expect(plan.decisions.get(implants.name)).toEqual(all(implants, "prune"));
  });
});

test("ranking by score per cost spares what saves little", () => {
  const equal = scored(model, () => 1);
  const plan = makePlan(
    model,
    equal,
    options({ rankBy: "score-per-cost", budget: { of: "macs", keep: 0.8 } }),
  );
  const groups = sensitivity.groups.map(({ group }) => group);
  const saved = groups.map((group) => {
    const decisions = new Map([
      [
        group.name,
        Array.from({ length: group.count }, (_, i): Decision => (i === 0 ? "prune" : "keep")),
      ],
    ]);
    return {
      group,
      macs: plan.before.macs - sizeOfModel(applyDecisions(model, groups, decisions)).macs,
    };
  });
  const touched = saved.filter(
    ({ group }) => count([plan.decisions.get(group.name)!], "prune") > 0,
  );
  const spared = saved.filter(
    ({ group }) => count([plan.decisions.get(group.name)!], "prune") === 0,
  );
  expect(Math.min(...touched.map(({ macs }) => macs))).toBeGreaterThanOrEqual(
    Math.max(...spared.map(({ macs }) => macs)),
  );
});

test("property: parameters and multiply-accumulates of any plan are those of the rebuilt model", () => {
  const groups = sensitivity.groups.map(({ group }) => group);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 2 ** 31 }),
      fc.double({ min: 0, max: 0.8, noNaN: true }),
      (seed, share) => {
        const random = new Random(seed);
        const decisions = new Map<string, Decision[]>(
          groups.map((group) => {
            const list = Array.from({ length: group.count }, (): Decision => {
              if (random.uniform() > share) return "keep";
              return group.implantable && random.uniform() < 0.5 ? "implant" : "prune";
            });
            if (!list.some((decision) => decision !== "prune")) list[0] = "keep";
            return [group.name, list];
          }),
        );
        const pruned = applyDecisions(model, groups, decisions);
        let parameters = 0;
        for (const { kind, data } of pruned.parameters.values())
          if (kind !== "statistic") parameters += data.length;
        expect(sizeOfModel(pruned).parameters).toBe(parameters);
        for (const { shape, data } of pruned.parameters.values()) {
          expect(data).toHaveLength(shape.reduce((a, b) => a * b));
        }
      },
    ),
    { numRuns: 25 },
  );
});
