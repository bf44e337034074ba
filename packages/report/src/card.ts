/** @file The model card: Markdown under a head that model hubs read. */
import { fileName } from "@espalier/pipeline";
import { compare } from "./comparison.ts";
import { criteriaOf } from "./criteria.ts";
import {
  describeCounts,
  describeEpochs,
  describeModel,
  describeRanks,
  describeTraining,
  epochsOf,
  explainData,
  explainEstimator,
  explainImplants,
  explainPlan,
  explainStability,
  explainTuning,
  isOfOtherFiles,
  looksAtData,
  unitsOf,
} from "./explain.ts";
import { formatCount } from "./format.ts";
import {
  commandOf,
  onnxExample,
  pipelineExample,
  pythonExample,
  pytorchExample,
  taskOf,
} from "./instructions.ts";
import type { ExportLayout, ModelDescription } from "./read-run.ts";
import type { Summary } from "./summary.ts";

/** The model card of a run. Paths of the machine it was made on do not appear in it. */
export function renderCard(run: Summary): string {
  const summary = withoutPaths(run);
  const report =
    "All figures and settings are in [report.html](report.html), all numbers in [summary.json](summary.json).";
  return join([
    frontMatter(summary, "espalier"),
    ...introduction(summary),
    report,
    ...results(summary),
    ...layers(summary),
    ...useOnnx(summary),
    ...reproduction(summary, "The settings are in [run.json](run.json)."),
  ]);
}

/** The model card of the exported model of a run, which lies in a directory of its own. */
export function renderExportCard(run: Summary, layout: ExportLayout): string {
  const summary = withoutPaths(run);
  return join([
    frontMatter(summary, "transformers.js"),
    ...introduction(summary),
    ...results(summary),
    ...layers(summary),
    ...useExport(true, summary.model, layout),
    ...reproduction(
      summary,
      "The command has no options for some settings of the run; its `run.json` has them all.",
    ),
  ]);
}

/** A summary whose data are called "cifar10:DIR" wherever they are. */
function withoutPaths(summary: Summary): Summary {
  const { manifest } = summary;
  return { ...summary, manifest: { ...manifest, data: manifest.data.replace(/:.*$/s, ":DIR") } };
}

/** The model card of an export of which nothing is known but the model. */
export function renderPlainCard(
  name: string,
  model: ModelDescription,
  layout: ExportLayout,
): string {
  const pruned = model.pruning !== undefined || layout.compact;
  const head = [
    "---",
    "# license: that of the model this one was made from",
    "library_name: transformers.js",
    `pipeline_tag: ${taskOf(model) ?? "image-classification"}`,
    "tags:",
    ...["transformers.js", "onnx", "espalier", ...(pruned ? ["pruned"] : [])].map(
      (tag) => `- ${tag}`,
    ),
    "---",
  ].join("\n");
  const classes = `${formatCount(model.classes.length)} classes`;
  const kind = code(describeModel({ model }) ?? model.type);
  return join([
    head,
    `# ${code(name)}`,
    `${kind} for ${classes}${pruned ? ", pruned" : ""}, exported with Espalier.`,
    ...useExport(false, model, layout),
  ]);
}

/** The model that a run began with, by a name that others can use. */
function sourceOf({ hub, source }: Summary["manifest"]): string {
  return hub ?? fileName(source);
}

function join(parts: readonly string[]): string {
  return `${parts.join("\n\n")}\n`;
}

/** What an exported directory holds and how to run it. */
function useExport(
  recorded: boolean,
  model: Summary["model"],
  { stock, compact, pytorch }: ExportLayout,
): string[] {
  const source = "for Espalier: this directory is a SOURCE";
  const weights: (readonly [string, string])[] = compact
    ? [
        [
          "model.safetensors",
          "a dense model of the same outputs: zeros where something was removed",
        ],
        ["compact/", `the pruned model's own parameters and configuration, ${source}`],
      ]
    : [["model.safetensors", stock ? "the parameters" : `the parameters, ${source}`]];
  const files = [
    ["onnx/model.onnx", "float32"],
    ["onnx/model_fp16.onnx", 'weights and most of the computation in float16 (`dtype: "fp16"`)'],
    ["onnx/model_quantized.onnx", 'weights and activations in 8 bits (`dtype: "q8"`)'],
    ...weights,
    ...(pytorch === undefined
      ? []
      : [[pytorch, "the network as a PyTorch module, which reads the parameters beside it"]]),
    ...(recorded ? [["pruning.json", "what was kept, replaced and removed, and why"]] : []),
  ];
  const python = stock
    ? [
        `Python's Transformers loads \`model.safetensors\`${compact ? ", which computes the same at the size and speed of the dense model" : ""}:`,
        codeBlock("python", pythonExample(model)),
      ]
    : [
        "The network is in the ONNX files; `model_type` in `config.json` only says how to call it. Python's Transformers cannot load `model.safetensors`.",
      ];
  const torch =
    pytorch === undefined
      ? []
      : [
          `With PyTorch, \`${pytorch}\` is the network${compact ? " at its pruned size" : ""}, to run or to train further:`,
          codeBlock("python", pytorchExample(model, pytorch)),
        ];
  return [
    "## Use",
    "With [Transformers.js](https://huggingface.co/docs/transformers.js), in Node and in browsers:",
    codeBlock("js", pipelineExample(taskOf(model))),
    table(
      ["file", "content"],
      files.map(([name, content]) => [code(name), content]),
      "--",
    ),
    ...python,
    ...torch,
  ];
}

/** Text as it stands, whatever is in it. */
function code(text: string): string {
  const longest = Math.max(0, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  // A space keeps a backtick at the end apart from the fence; Markdown takes it away again.
  const space = text.startsWith("`") || text.endsWith("`") ? " " : "";
  return `${fence}${space}${text.replaceAll(/\s+/g, " ")}${space}${fence}`;
}

function codeBlock(language: string, text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  alignment = "--:",
): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = head.map((_, i) => (i === 0 ? ":--" : alignment));
  return [line(head), line(rule), ...rows.map(line)].join("\n");
}

/** Keys as model hubs know them. What only the user knows is left as a comment. */
function frontMatter(summary: Summary, library: "espalier" | "transformers.js"): string {
  const { manifest, evaluation, trained, sensitivity, sizes, model } = summary;
  const judged = evaluation?.tuned ?? trained;
  const task = taskOf(model);
  const { accuracy, loss } = criteriaOf(summary);
  const tags = [...new Set([library, "espalier"])];
  if (manifest.command === "prune") tags.push("pruned");
  if (sensitivity?.metric === "hessian-trace") tags.push("hap");
  if (sizes !== undefined) tags.push("onnx");
  // A JSON string is a YAML string.
  const data = JSON.stringify(manifest.data.split(":")[0]);
  const lines =
    manifest.sha256 === undefined
      ? ["# license: as you choose"]
      : [
          "# license: that of the model this one was made from",
          manifest.hub === undefined
            ? "# base_model: the repository of that model"
            : `base_model: ${JSON.stringify(manifest.hub.replace(/@.*/, ""))}`,
        ];
  lines.push(`library_name: ${library}`);
  if (task !== undefined) lines.push(`pipeline_tag: ${task}`);
  lines.push("tags:", ...tags.map((tag) => `- ${tag}`), "datasets:", `- ${data}`);
  if (judged !== undefined && task !== undefined && !isOfOtherFiles(manifest)) {
    lines.push(
      "metrics:",
      `- ${accuracy.type}`,
      "model-index:",
      `- name: ${JSON.stringify(summary.run)}`,
      "  results:",
      "  - task:",
      `      type: ${task}`,
      "    dataset:",
      `      type: ${data}`,
      `      name: ${data}`,
      "      split: test",
      "    metrics:",
      `    - type: ${accuracy.type}`,
      `      value: ${judged.accuracy}`,
      "    - type: loss",
      `      name: ${loss.name}`,
      `      value: ${judged.loss}`,
    );
  }
  return ["---", ...lines, "---"].join("\n");
}

function introduction(summary: Summary): string[] {
  const { manifest, counts, plan, sensitivity, run } = summary;
  const described = describeModel(summary);
  const model = described === undefined ? "A network" : code(described);
  const data = code(manifest.data.split(":")[0]);
  const epochs = describeEpochs(epochsOf(summary));
  const note = explainData(summary);
  const notes = note === undefined ? [] : [note];
  switch (manifest.command) {
    case "train":
      return [
        `# ${code(run)}`,
        `${model} ${describeTraining(summary)} on ${data} for ${epochs} with Espalier.`,
        ...notes,
      ];
    case "sensitivity":
      return [
        `# Sensitivity of ${code(sourceOf(manifest))}`,
        `Scores of the model's components${looksAtData(summary) ? ` on ${data}` : ""}, measured with Espalier: what would be lost without them.`,
        ...notes,
        ...(sensitivity
          ? [`${explainEstimator(sensitivity)} ${explainStability(sensitivity)}`]
          : []),
      ];
    case "prune": {
      const total = counts && formatCount(counts.keep + counts.implant + counts.prune);
      const done = counts && `Of ${total} components, ${describeCounts(counts)}.`;
      const planned = plan && explainPlan(plan);
      return [
        `# ${code(run)}`,
        `${model} for ${data}, made from ${code(sourceOf(manifest))} by pruning with Espalier. ${explainTuning(summary)}`,
        ...notes,
        ...(done ? [[done, planned].filter((part) => part !== undefined).join(" ")] : []),
      ];
    }
  }
}

// The example that loads an export asks for 8 bits.
const FLOAT32 = "All figures are of float32 weights.";

function results(summary: Summary): string[] {
  const { evaluation, latency, trained, manifest } = summary;
  const { accuracy, loss } = criteriaOf(summary);
  if (trained !== undefined) {
    const unit = loss.unit === undefined ? "" : ` ${loss.unit}`;
    return [
      "## Results",
      `${accuracy.describe(trained.accuracy, trained.count)}; ${loss.plainName} ${trained.loss.toFixed(4)}${unit}. ${FLOAT32}`,
    ];
  }
  if (manifest.command !== "prune") return [];
  const rows = compare(summary);
  if (rows.length === 0) return [];
  const models = epochsOf(summary) > 0 ? ["pruned, before tuning", "tuned"] : ["pruned"];
  const lines = rows.map(({ name, cells }) => {
    const texts = cells.map(({ text, note }) => (note === undefined ? text : `${text} (${note})`));
    // What is alike for both pruned models is given once.
    while (texts.length <= models.length) texts.push(texts[texts.length - 1]);
    return [name, ...texts, cells[cells.length - 1].change ?? ""];
  });
  const notes = [
    evaluation &&
      `${accuracy.name} and ${loss.plainName} are those of all ${formatCount(evaluation.dense.count)} test samples.`,
    latency && `Times are first quartiles on ${code(latency.executor)}, both models in turn.`,
    FLOAT32,
  ];
  return [
    "## Results",
    table(["", "dense", ...models, "change"], lines),
    notes.filter((note) => note !== undefined).join(" "),
  ];
}

function layers({ widths }: Summary): string[] {
  const changed = widths.filter(({ before, after, implants }) => before !== after || implants > 0);
  if (changed.length === 0) return [];
  const ranked = changed.some(({ ranks }) => ranks.length > 0);
  return [
    "## Width of each layer",
    [
      `The width is the number of ${unitsOf(changed)}. Layers that are not listed have their whole width.`,
      ...(ranked ? [explainImplants(changed)] : []),
    ].join(" "),
    table(
      ["layer", "before", "after", "of them implants", ...(ranked ? ["rank"] : [])],
      changed.map(({ layer, before, after, implants, ranks }) => [
        code(layer),
        String(before),
        String(after),
        String(implants),
        ...(ranked ? [describeRanks(ranks)] : []),
      ]),
    ),
  ];
}

function useOnnx(summary: Summary): string[] {
  if (summary.sizes === undefined) return [];
  return ["## Use", codeBlock("js", onnxExample(summary))];
}

/** @param elsewhere Where to look if no command repeats the run. */
function reproduction({ run, manifest }: Summary, elsewhere: string): string[] {
  const command = commandOf(run, manifest, sourceOf(manifest));
  const hash = manifest.sha256 ? `The source has the SHA-256 ${code(manifest.sha256)}. ` : "";
  return [
    "## How to reproduce",
    command === undefined ? elsewhere : codeBlock("sh", command),
    `${hash}The same source, data and settings give the same result, but for measured times.`,
  ];
}
