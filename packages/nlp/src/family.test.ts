/** What is refused of checkpoints whose parts contradict each other. */
import { Random } from "@espalier/core";
import { describe, expect, test } from "vitest";
import { bert, distilbert, roberta } from "./bert.ts";
import { tinyConfig, tinyModel } from "./testing/index.ts";

/** The tensors of a tiny model, loaded with another configuration than its own. */
function reload(changes: object, family = bert) {
  const config = { ...tinyConfig(family), num_labels: 2 };
  const { parameters } = family.initialize(config, new Random(0));
  const changed = { ...config, ...changes };
  return family.load({ config: changed, tensors: parameters, path: "a.safetensors" }, changed);
}

describe("a checkpoint whose config.json contradicts its tensors", () => {
  test.each([
    [{ hidden_size: 9 }, "word_embeddings.weight: expected shape [20,9], got [20,6]"],
    [{ num_hidden_layers: 3 }, "encoder.layer.2.attention.self.query.weight is missing"],
    [{ num_hidden_layers: 1 }, /encoder\.layer\.1\..* has no place in the model/],
    [{ intermediate_size: 7 }, "intermediate.dense.weight: expected shape [7,6], got [5,6]"],
    [{ vocab_size: 21 }, "word_embeddings.weight: expected shape [21,6], got [20,6]"],
    [{ num_attention_heads: 4 }, "config: expected a width that its 4 heads divide, got 6"],
    [
      { intermediate_size: 1 << 24 },
      "config: expected a model of ordinary size, got 2 layers of 3 heads and 16777216 neurons, 6 wide",
    ],
    [{ pad_token_id: 20 }, "config.pad_token_id: expected a token below vocab_size 20, got 20"],
    [
      { id2label: { 0: "a", 1: "b", 2: "c" } },
      "config.id2label: expected 2 labels, the rows of classifier.weight, got 3",
    ],
  ])("is refused: %o", (changes, message) => {
    expect(() => reload(changes)).toThrow(message);
    expect(() => reload(changes)).toThrow(/^a\.safetensors: [^\n]*$/);
  });

  test("is refused where positions are all before the first", () => {
    expect(() => reload({ pad_token_id: 15 }, roberta)).toThrow(
      "config.max_position_embeddings: expected more than 16, got 12",
    );
  });
});

describe("a checkpoint of another network", () => {
  test.each([
    [
      { architectures: ["BertForTokenClassification"] },
      "config.architectures: expected BertForSequenceClassification, got BertForTokenClassification",
    ],
    [{ is_decoder: true }, "config.is_decoder: Invalid input: expected false, got true"],
    [
      { position_embedding_type: "relative_key" },
      'config.position_embedding_type: Invalid input: expected "absolute", got "relative_key"',
    ],
  ])("is refused: %o", (changes, message) => {
    expect(() => reload(changes)).toThrow(message);
  });

  test("is none where the configuration tells the truth", () => {
    const labels = { id2label: { 0: "a", 1: "b" }, is_decoder: false, pad_token_id: 0 };
    for (const family of [bert, roberta, distilbert]) {
      const architectures = ["OfMyOwnForSequenceClassification"];
      expect(reload({ ...labels, architectures }, family).classes).toEqual(["a", "b"]);
    }
    // Without a head, labels and architectures are those of another task.
    const model = tinyModel({ head: { hidden: false, output: false } });
    const config = {
      ...model.config,
      id2label: { 0: "a" },
      architectures: ["BertForMultipleChoice"],
    };
    const source = { config, tensors: model.parameters, path: "a.safetensors" };
    expect(bert.load(source, config).classes).toEqual([]);
  });
});
