/** @file `npm run bench`: measures, and writes results as JSON and Markdown. */
import { existsSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { EspalierError, readJson, writeFileAtomic, writeJsonAtomic } from "@espalier/base";
import { openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import {
  type CompensationCell,
  compensationInputs,
  compensationMarkdown,
  measureCompensation,
} from "./compensation.ts";
import { complain } from "./complain.ts";
import { encodersMarkdown, measureEncoders } from "./encoders.ts";
import { exportsMarkdown, measureExports } from "./exports.ts";
import { type HeadsRow, headsInputs, headsMarkdown, measureHeads } from "./heads.ts";
import { imagenetMarkdown, measureImagenet } from "./imagenet.ts";
import { measureSpeed } from "./speed.ts";
import { speedMarkdown } from "./speed-markdown.ts";
import { hashOf } from "./tables/cells.ts";
import { measureTuned, type TunedRow, tunedInputs, tunedMarkdown } from "./tuned.ts";
import { type Cell, measureUntuned, untunedInputs, untunedMarkdown } from "./untuned.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

const usage = `usage: npm run bench -- [MEASUREMENT] [options]

  speed     time and memory of the main operations, beside PyTorch (default; some minutes)
  encoders  the same of text encoders (a quarter of an hour on 2 cores)
  untuned   accuracy straight after pruning, every metric (an hour on 2 cores)
  compensation
            accuracy straight after pruning, with and without fitted layers (an hour on 2 cores)
  tuned     accuracy before and after tuning, every metric (hours on 2 cores)
  exports   accuracy, size and speed of exported files in Transformers.js (some minutes)
  imagenet  time and memory of pruning a ResNet-50 at 224×224 (some minutes)
  heads     how well and how fast each estimator ranks the attention heads of an encoder tuned for
            SST-2 (half an hour on 2 cores)

  --checkpoints DIR   where cifar10_resnet20-4118986f.pt, cifar10_resnet56-187c023a.pt and
                      resnet20-12fca82f.th are (default: ../shared/data/cifar10-resnets)
  --folder DIR        a folder of images in ImageNet's layout, for imagenet (default:
                      ../shared/data/imagenette-mini)
  --encoder DIR       an encoder in Hugging Face's layout, for heads, and for encoders, which go without
                      (default: ESPALIER_MINILM)
  --glue DIR          the folder of GLUE's tasks (default: ../shared/data/glue)
  --draws N           of the long run of hutchinson that heads are compared with (default: 200)
  --sequences N       that encoders scores a BERT-base on (default: 128)
  --python COMMAND    a Python with PyTorch; may be given several times (default: python3)
  --threads N         (default: all cores)
  --rounds N          turns of ours and PyTorch's (default: 3)
  --epochs N          of tuning (default: 3)
  --images N          test images of compensation (default: all) and exports (default: 1000)
  --output DIR        (default: benchmarks/results)
  --fresh             measure anew what results there are of all but speed
`;

const measurements = "speed encoders untuned compensation tuned exports imagenet heads".split(" ");

const log = (line: string) => process.stderr.write(`${line}\n`);

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      checkpoints: { type: "string", default: join(root, "../shared/data/cifar10-resnets") },
      folder: { type: "string", default: join(root, "../shared/data/imagenette-mini") },
      encoder: { type: "string", default: process.env.ESPALIER_MINILM },
      draws: { type: "string", default: "200" },
      sequences: { type: "string", default: "128" },
      glue: { type: "string", default: join(root, "../shared/data/glue") },
      python: { type: "string", multiple: true, default: ["python3"] },
      threads: { type: "string", default: String(availableParallelism()) },
      rounds: { type: "string", default: "3" },
      epochs: { type: "string", default: "3" },
      images: { type: "string" },
      output: { type: "string", default: join(root, "benchmarks/results") },
      fresh: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const [what = "speed"] = positionals;
  if (values.help || !measurements.includes(what)) {
    process.stderr.write(usage);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const [threads, rounds, epochs] = [values.threads, values.rounds, values.epochs].map(Number);
  const checkpoint = (name: string) => {
    const path = join(values.checkpoints, name);
    if (existsSync(path)) return path;
    throw new EspalierError("missing-file", `${path}: no such checkpoint; see --checkpoints`, {
      path,
    });
  };
  const machine = {
    processor: cpus()[0].model,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    node: process.versions.node,
  };
  const write = async (name: string, result: object, markdown: string) => {
    await writeJsonAtomic(join(values.output, `${name}.json`), { machine, ...result });
    await writeFileAtomic(join(values.output, `${name}.md`), `${markdown}\n`);
  };
  if (what === "imagenet") {
    const result = await measureImagenet({ images: values.folder, threads });
    await write("imagenet", result, imagenetMarkdown(result));
    process.stdout.write(`${imagenetMarkdown(result)}\n`);
    return;
  }
  if (what === "encoders") {
    const { python, encoder, glue } = values;
    const tasks = [
      ["sst2", "SST-2"],
      ["mrpc", "MRPC"],
    ] as const;
    const result = await measureEncoders({
      ...{ python, threads, rounds, log, sequences: Number(values.sequences) },
      texts:
        encoder === undefined
          ? undefined
          : {
              encoder,
              tasks: tasks.map(([task, folder]) => `glue/${task}:${join(glue, folder)}`),
            },
    });
    await write(what, result, encodersMarkdown(result));
    process.stdout.write(`${encodersMarkdown(result)}\n`);
    return;
  }
  const executor = createOnnxExecutor({ threads });
  /** What an earlier run has left, unless it is to be measured anew. */
  const known = async <T>(name: string, key: string, inputs: string): Promise<readonly T[]> => {
    const path = join(values.output, `${name}.json`);
    if (values.fresh || !existsSync(path)) return [];
    const before = (await readJson(path)) as { inputs?: string } & Record<string, readonly T[]>;
    if (before.inputs === inputs) return before[key];
    throw new EspalierError(
      "invalid-argument",
      `${path}: expected results of the models and settings of now, got others'; --fresh measures all of them anew`,
      { path },
    );
  };
  if (what === "heads") {
    if (values.encoder === undefined) {
      throw new EspalierError("missing-file", "heads: expected an encoder; see --encoder");
    }
    const draws = Number(values.draws);
    const inputs = hashOf(await headsInputs(values.encoder, draws));
    const result = await measureHeads({
      encoder: values.encoder,
      data: `glue/sst2:${join(values.glue, "SST-2")}`,
      epochs: 2,
      executor,
      directory: join(root, "runs/benchmark-heads"),
      draws,
      known: await known<HeadsRow>(what, "rows", inputs),
      log,
      onRows: (rows, subject) =>
        write(what, { inputs, subject, rows }, headsMarkdown(rows, subject)),
    });
    process.stdout.write(`${headsMarkdown(result.rows, result.subject)}\n`);
    return;
  }
  const resnet56 = checkpoint("cifar10_resnet56-187c023a.pt");
  if (what === "speed") {
    const resnet20 = checkpoint("cifar10_resnet20-4118986f.pt");
    const result = await measureSpeed({
      resnet20,
      resnet56,
      python: values.python,
      threads,
      rounds,
      log,
    });
    await write("speed", result, speedMarkdown(result));
    process.stdout.write(`${speedMarkdown(result)}\n`);
    return;
  }
  const task = await openTask("cifar10");
  if (what === "untuned") {
    const sources = {
      "ResNet-56": resnet56,
      "ResNet-20, zero-padded shortcuts": checkpoint("resnet20-12fca82f.th"),
    };
    const name = "untuned-accuracy";
    const inputs = hashOf(await untunedInputs(sources));
    const cells = await measureUntuned({
      sources,
      task,
      executor,
      known: await known<Cell>(name, "cells", inputs),
      log,
      onCells: (done) => write(name, { inputs, cells: done }, untunedMarkdown(done)),
    });
    process.stdout.write(`${untunedMarkdown(cells)}\n`);
    return;
  }
  if (what === "compensation") {
    const inputs = hashOf(await compensationInputs(resnet56));
    const cells = await measureCompensation({
      source: resnet56,
      task,
      executor,
      images: Number(values.images ?? Number.POSITIVE_INFINITY),
      known: await known<CompensationCell>(what, "cells", inputs),
      log,
      onCells: (done) => write(what, { inputs, cells: done }, compensationMarkdown(done)),
    });
    process.stdout.write(`${compensationMarkdown(cells)}\n`);
    return;
  }
  if (what === "exports") {
    const images = Number(values.images ?? 1000);
    const result = await measureExports({ source: resnet56, task, executor, threads, images, log });
    await write(what, result, exportsMarkdown(result));
    process.stdout.write(`${exportsMarkdown(result)}\n`);
    return;
  }
  const directory = join(root, "runs/benchmark-tuned");
  const name = "tuned-accuracy";
  const inputs = hashOf(await tunedInputs(resnet56));
  const rows = await measureTuned({
    source: resnet56,
    task,
    executor,
    directory,
    epochs,
    known: await known<TunedRow>(name, "rows", inputs),
    log,
    onRows: (done) => write(name, { inputs, rows: done }, tunedMarkdown({ rows: done })),
  });
  process.stdout.write(`${tunedMarkdown({ rows })}\n`);
}

try {
  await main();
} catch (error) {
  complain(error);
  process.exitCode = 1;
}
