import { expect, test } from "vitest";
import { describeModel, explainPlan, unitsOf } from "./explain.ts";
import type { Summary } from "./summary.ts";

const said = (type: string, fields: Readonly<Record<string, string | number>>) =>
  describeModel({
    model: { type, details: Object.entries(fields) } as unknown as Summary["model"],
  });

test("of a network's configuration all fields are named, of an encoder's its size", () => {
  const fields = { depth: 20, shortcut: "projection", num_labels: 10 };
  expect(said("cifar-resnet", fields)).toBe("cifar-resnet (depth 20, shortcut projection)");
  expect(said("custom", {})).toBe("custom");
  const bert = {
    ...{ vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12 },
    ...{ intermediate_size: 1536, hidden_act: "gelu", transformers_version: "4.8.2" },
  };
  expect(said("bert", bert)).toBe("bert (hidden size 384, hidden layers 6, attention heads 12)");
  const distilled = { vocab_size: 30522, dim: 768, n_layers: 6, n_heads: 12, activation: "gelu" };
  expect(said("distilbert", distilled)).toBe("distilbert (dim 768, layers 6, heads 12)");
});

test.each([
  ["global", "All groups compete with each other, so some lose much and others little."],
  ["kind", "Components compete with those of their own kind, and each kind loses the same share."],
  ["group", "Every group loses the same share."],
] as const)("among what components compete: %s", (scope, said) => {
  const budget = { of: "macs", keep: 0.5 } as const;
  const before = { parameters: 2, macs: 2 };
  const plan = { budget, reached: 0.5, before, rankBy: "score", scope } as const;
  expect(explainPlan(plan)).toMatch(new RegExp(`Components were ranked by their score. ${said}$`));
});

test.each([
  ["score-per-cost", "cost in the whole network"],
  ["score-per-saving", "saved when their turn came"],
] as const)("a plan by %s says what scores were divided by", (rankBy, said) => {
  const budget = { of: "macs", keep: 0.5 } as const;
  const before = { parameters: 1, macs: 1 };
  const plan = { budget, reached: 0.5, before, rankBy, scope: "global" } as const;
  expect(explainPlan(plan)).toContain(`divided by the multiply-accumulates that they ${said}, so`);
  expect(explainPlan({ ...plan, budget: { ...budget, of: "components" } })).toContain(
    "ranked by their score.",
  );
});

test("widths are those of what was scored", () => {
  expect(unitsOf([{ kind: "channel" }, { kind: "channel" }])).toBe("channels");
  expect(unitsOf([{ kind: "neuron" }, { kind: "head" }])).toBe("heads or neurons");
  expect(unitsOf([{ kind: undefined }])).toBe("components");
});
