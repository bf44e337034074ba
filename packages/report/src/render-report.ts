/** @file A run directory as a page, a model card and a summary. */
import { lstat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFileAtomic, writeJsonAtomic } from "@espalier/base";
import { renderCard, renderExportCard, renderPlainCard } from "./card.ts";
import { renderPage } from "./page.ts";
import { readExportedModel, readExportLayout, readRun } from "./read-run.ts";
import type { RunFile } from "./sections.ts";
import { summarize } from "./summary.ts";

/** Paths of what was written. */
export interface Report {
  /** One page that needs no other file. */
  readonly html: string;
  /** The model card. */
  readonly card: string;
  /** All numbers of the page, as JSON. */
  readonly summary: string;
}

/** Where a run has the export of its final model. */
const EXPORTED = "export/pruned";

const runFiles: readonly RunFile[] = [
  { path: "README.md", content: "the model card" },
  { path: "summary.json", content: "all numbers of this page" },
  { path: "run.json", content: "what was asked for" },
  { path: "dense-training.json", content: "the epochs of the dense model's training" },
  { path: "dense/config.json", content: "the dense model's configuration after it" },
  { path: "dense/model.safetensors", content: "its parameters" },
  { path: "sensitivity.json", content: "scores and standard errors of all components" },
  {
    path: "plan.json",
    content: "what happens to each component; can be edited and followed again",
  },
  { path: "budgets.json", content: "what other budgets would have done" },
  { path: "rounds", content: "scores, plan and model of each round" },
  { path: "pruned/model.safetensors", content: "the model straight after pruning" },
  { path: "training.json", content: "the epochs of training" },
  { path: "model/config.json", content: "the final model's configuration" },
  { path: "model/model.safetensors", content: "its parameters" },
  { path: "evaluation.json", content: "accuracy and loss on the test set" },
  { path: "export/pruned/README.md", content: "the final model for others: its model card" },
  { path: "export/pruned/onnx/model.onnx", content: "as ONNX" },
  { path: "export/pruned/onnx/model_fp16.onnx", content: "as ONNX in half precision" },
  { path: "export/pruned/onnx/model_quantized.onnx", content: "as ONNX in 8 bits" },
  { path: "export/pruned/model.safetensors", content: "its parameters" },
  { path: "export/pruned/model.py", content: "as a PyTorch module" },
  { path: "export/pruned/compact/model.py", content: "as a PyTorch module" },
  { path: "export/pruned/compact/model.safetensors", content: "those of the pruned shapes alone" },
  { path: "export/pruned/pruning.json", content: "what pruning has done, in one file" },
  { path: "export/dense/onnx/model.onnx", content: "the model before, as ONNX" },
  { path: "export/dense/model.safetensors", content: "the parameters of the model before" },
  { path: "sizes.json", content: "parameters, multiply-accumulates and bytes" },
  { path: "latency.json", content: "measured times" },
  { path: "digests.json", content: "SHA-256 of the files that each stage was made of" },
];

/**
 * Writes `README.md`, a model card, into an exported directory: with the results of the run that made
 * the model, where there is one.
 *
 * @param name What the model is called if no run made it.
 * @returns Its path.
 * @throws EspalierError as `renderReport`.
 */
export async function writeExportCard(
  directory: string,
  name: string,
  runDirectory: string | undefined,
): Promise<string> {
  const path = join(directory, "README.md");
  const layout = await readExportLayout(directory);
  const card =
    runDirectory === undefined
      ? renderPlainCard(name, await readExportedModel(directory), layout)
      : renderExportCard(summarize(await readRun(runDirectory)), layout);
  await writeFileAtomic(path, card);
  return path;
}

/**
 * Writes `report.html`, `README.md` and `summary.json` into a run directory, from what is there; a
 * run need not be finished. An exported model in it gets a model card of its own, unless it is a link to
 * elsewhere.
 *
 * @throws EspalierError `missing-file` if it is no run, `invalid-file` or `mismatched-model` naming
 *   the file that is malformed.
 */
export async function renderReport(runDirectory: string): Promise<Report> {
  const run = await readRun(runDirectory);
  const summary = summarize(run);
  const report = {
    html: join(runDirectory, "report.html"),
    card: join(runDirectory, "README.md"),
    summary: join(runDirectory, "summary.json"),
  };
  await writeJsonAtomic(report.summary, summary);
  await writeFileAtomic(report.card, renderCard(summary));
  const exported = join(runDirectory, EXPORTED);
  if (run.has(EXPORTED) && !(await isLinked(exported))) {
    const exportCard = renderExportCard(summary, await readExportLayout(exported));
    await writeFileAtomic(join(exported, "README.md"), exportCard);
  }
  const files = runFiles.filter(({ path }) => run.has(path));
  await writeFileAtomic(report.html, renderPage(summary, files));
  return report;
}

/** Whether the directory of an export, or the one that it is in, is a symbolic link. */
async function isLinked(exported: string): Promise<boolean> {
  const stats = await Promise.all([dirname(exported), exported].map((path) => lstat(path)));
  return stats.some((stat) => stat.isSymbolicLink());
}
