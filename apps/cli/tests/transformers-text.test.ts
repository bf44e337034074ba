/** @file Exported text models in Transformers.js, as users load them, and as dense models elsewhere. */
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  applyDecisions,
  bindParameters,
  componentGroups,
  type Decision,
  type Model,
  type ModelConfig,
  type ModelFamily,
  type Parameter,
  Random,
  type TextInput,
} from "@espalier/core";
import { float32Data } from "@espalier/graph";
import { bert, distilbert, electra, encoders, roberta } from "@espalier/nlp";
import { exportModel, loadSource } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import {
  env,
  pipeline,
  type Tensor,
  type TextClassificationPipeline,
} from "@huggingface/transformers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const executor = createOnnxExecutor({ threads: 1 });
const words = "good bad film a the not very plot of is it dull bright".split(" ");

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "espalier-transformers-text-"));
  env.allowRemoteModels = false;
  env.localModelPath = directory;
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const bytes = (text: string) => new TextEncoder().encode(text);

/** A checkpoint of BERT's time: words, one a line. */
const wordPieces = new Map([
  ["vocab.txt", bytes(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ...words].join("\n"))],
]);

/** Words as RoBERTa's tokenizer has them, without merges: letters. */
function byteLevel(): Map<string, Uint8Array> {
  const special = ["<s>", "<pad>", "</s>", "<unk>"];
  const letters = [..."abcdefghijklmnopqrstuvwxyzĠ"];
  const vocab = Object.fromEntries([...special, ...letters].map((token, id) => [token, id]));
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false },
      ...{ normalized: false, special: true },
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
    post_processor: {
      type: "RobertaProcessing",
      sep: ["</s>", 2],
      cls: ["<s>", 0],
      trim_offsets: true,
      add_prefix_space: false,
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true },
    model: { type: "BPE", unk_token: "<unk>", vocab, merges: [] },
  };
  return new Map([
    ["tokenizer.json", bytes(JSON.stringify(tokenizer))],
    [
      "tokenizer_config.json",
      bytes(JSON.stringify({ tokenizer_class: "RobertaTokenizer", pad_token: "<pad>" })),
    ],
  ]);
}

const sizes = {
  vocab_size: 40,
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  intermediate_size: 24,
  max_position_embeddings: 40,
  type_vocab_size: 2,
  hidden_act: "gelu",
};
const distilled = { vocab_size: 40, dim: 32, n_layers: 2, n_heads: 4, hidden_dim: 24 };

const models: [ModelFamily, Partial<ModelConfig>, ReadonlyMap<string, Uint8Array>, string[]][] = [
  [bert, sizes, wordPieces, ["negative", "positive"]],
  [
    roberta,
    { ...sizes, type_vocab_size: 1, pad_token_id: 1 },
    byteLevel(),
    ["contradiction", "neutral", "entailment"],
  ],
  [
    distilbert,
    { ...distilled, max_position_embeddings: 40, activation: "gelu" },
    wordPieces,
    ["negative", "positive"],
  ],
  [electra, { ...sizes, embedding_size: 16 }, wordPieces, ["negative", "positive"]],
];

/** A model with weights as large as those of trained ones, so that attention is not even. */
async function makeModel(
  family: ModelFamily,
  config: Partial<ModelConfig>,
  files: ReadonlyMap<string, Uint8Array>,
  classes: string[],
): Promise<Model> {
  const random = new Random(family.name);
  const fresh = family.initialize({ model_type: family.name, ...config }, random);
  const encoder = family.load(
    { config: fresh.config, path: family.name, tensors: fresh.parameters, files },
    fresh.config,
  );
  const model = family.withHead!(encoder, { classes, objective: "classification" }, random);
  return model.withParameters(
    new Map(
      [...model.parameters].map(([name, parameter]): [string, Parameter] => {
        const noise = random.stream(name);
        const scale = parameter.kind === "normalization" && name.endsWith("weight") ? 1 : 0;
        const data = parameter.data.map(() => scale + 0.25 * noise.normal());
        return [name, { ...parameter, data }];
      }),
    ),
  );
}

/** Two of five components of every group removed, and of the first heads and neurons all. */
function prune(model: Model): Model {
  const groups = componentGroups(model, "together");
  const seen = new Set<string>();
  const decisions = new Map(
    groups.map(({ name, kind, count }) => {
      const all = !seen.has(kind);
      seen.add(kind);
      const decide = (i: number): Decision => (all || i % 5 < 2 ? "prune" : "keep");
      return [name, Array.from({ length: count }, (_, i) => decide(i))];
    }),
  );
  return applyDecisions(model, groups, decisions);
}

const texts = [
  "a good film",
  "it is a very dull film of not very bright plot",
  "good good good",
  "the plot",
  "not bad",
  "bright film it is not",
];

type Inputs = Readonly<Record<string, Tensor>>;

/** What Espalier puts out for the tokens that Transformers.js made. */
async function logitsOf(model: Model, inputs: Inputs): Promise<Float32Array> {
  const [batch, length] = inputs.input_ids.dims;
  const { graph, constants } = bindParameters(model, batch, "evaluation", length);
  const program = await executor.compile({ outputs: { logits: graph.logits }, constants });
  const feeds = Object.fromEntries(
    Object.keys(graph.inputs).map((name) => [
      name,
      (inputs[name]?.data as BigInt64Array | undefined) ?? new BigInt64Array(batch * length),
    ]),
  );
  const { logits } = await program.run(feeds);
  await program.dispose();
  return float32Data(logits);
}

const load = (name: string, dtype: "fp32" | "fp16" | "q8") =>
  pipeline("text-classification", name, { dtype, device: "cpu" });

function tokensOf(classify: TextClassificationPipeline): Inputs {
  return classify.tokenizer(texts, { padding: true, truncation: true }) as Inputs;
}

async function logitsIn(classify: TextClassificationPipeline, inputs: Inputs) {
  const { logits } = await classify.model(inputs);
  return Float32Array.from(logits.data as Float32Array);
}

const largest = (numbers: Float32Array) => numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
const difference = (a: Float32Array, b: Float32Array) => largest(a.map((n, i) => n - b[i]));

describe.each(
  models.flatMap(([family, ...rest]) => [
    [family.name, "whole", () => makeModel(family, ...rest)] as const,
    [family.name, "pruned", async () => prune(await makeModel(family, ...rest))] as const,
  ]),
)("%s, %s,", (name, state, make) => {
  const folder = `${name}-${state}`;
  const at = (path: string) => join(directory, folder, path);
  let model: Model;
  let inputs: Inputs;
  let expected: Float32Array;
  beforeAll(async () => {
    model = await make();
    await exportModel(model, join(directory, folder), { executor });
    const classify = await load(folder, "fp32");
    inputs = tokensOf(classify);
    await classify.dispose();
    expected = await logitsOf(model, inputs);
  });

  test("is run and named by Transformers.js as by Espalier", async () => {
    const classify = await load(folder, "fp32");
    const logits = await logitsIn(classify, inputs);
    expect(difference(logits, expected)).toBeLessThan(1e-4);
    const answers = (await classify(texts, { top_k: 1 })) as unknown as { label: string }[];
    const labels = answers.map(({ label }) => label);
    const wanted = texts.map((_, n) => {
      const row = [...expected.subarray(n * model.classes.length).slice(0, model.classes.length)];
      return model.classes[row.indexOf(Math.max(...row))];
    });
    expect(labels).toEqual(wanted);
    const [first, second] = [0, model.classes.length].map((start) =>
      expected.subarray(start, start + model.classes.length),
    );
    expect(difference(first, second)).toBeGreaterThan(0.01);
    await classify.dispose();
  });

  test.each([
    ["fp16", 1e-2],
    ["q8", 0.25],
  ] as const)("runs in %s", async (dtype, tolerance) => {
    const classify = await load(folder, dtype);
    const error = difference(await logitsIn(classify, inputs), expected);
    expect(error).toBeGreaterThan(0);
    expect(error / largest(expected)).toBeLessThan(tolerance);
    await classify.dispose();
  });

  test("is an Espalier model again, with the same logits", async () => {
    const loaded = (await loadSource(join(directory, folder), encoders)).model;
    expect(loaded.config.pruning).toEqual(model.config.pruning);
    expect(loaded.classes).toEqual(model.classes);
    expect(loaded.preprocessing).toMatchObject({
      kind: "text",
      maxLength: (model.preprocessing as TextInput).maxLength,
      padding: (model.preprocessing as TextInput).padding,
    });
    expect(await logitsOf(loaded, inputs)).toEqual(expected);
  });

  test("is a dense model of the family for others, with equal logits", async () => {
    const entries = (await readdir(at("."))).includes("compact");
    expect(entries).toBe(state === "pruned");
    const dense = join(directory, `${folder}-for-others`);
    for (const file of ["config.json", "model.safetensors"]) {
      await cp(at(file), join(dense, file));
    }
    const config = JSON.parse(await readFile(join(dense, "config.json"), "utf8"));
    expect(config).not.toHaveProperty("pruning");
    expect(config.architectures).toEqual([expect.stringMatching(/ForSequenceClassification$/)]);
    const loaded = (await loadSource(dense, encoders)).model;
    const whole = await make().then((made) => made.denseEquivalent!());
    const shapes = ({ parameters }: Model) =>
      [...parameters].map(([key, { shape }]) => [key, shape]).sort();
    expect(shapes(loaded)).toEqual(shapes(whole));
    expect(difference(await logitsOf(loaded, inputs), expected)).toBeLessThan(1e-5);
  });
});
