/** @file The speed benchmark as Markdown. */
import type { measureSpeed } from "./speed.ts";

type SpeedResult = Awaited<ReturnType<typeof measureSpeed>>;

const fixed = (value: number, digits = 2) => value.toFixed(digits);

/** Our times, the ratios to each PyTorch, memory, and the speed-up of pruned models. */
export function speedMarkdown(result: SpeedResult): string {
  const { ours, peers, resnet56, speedUp } = result;
  const lines = [
    "# Speed and memory",
    "",
    `${result.processor}, ${result.threads} threads, Node ${result.node}, ONNX Runtime ${result.onnxruntime}; medians of ${result.rounds} turns. Times of ours include compiling, except per probe and per step. \`npm run bench\``,
    "",
    "| ResNet-20, 128 images | seconds |",
    "|---|---|",
    `| exact per-channel traces | ${fixed(ours.exactTracesSeconds)} |`,
    `| probe, one draw (rank correlation to exact ${fixed(ours.probeRankCorrelation, 3)}) | ${fixed(ours.probeSeconds)} |`,
    `| one more Hutchinson probe | ${fixed(ours.hutchinsonProbeSeconds, 3)} |`,
    `| one training step | ${fixed(ours.trainingStepSeconds, 3)} |`,
  ];
  for (const [version, peer] of Object.entries(peers)) {
    lines.push(
      "",
      `## Beside PyTorch ${version}`,
      "",
      "| | Espalier | PyTorch | ratio |",
      "|---|---|---|---|",
      `| traces of all channels: exact, against 300 probes of HAP's loop (double backward alone) | ${fixed(ours.exactTracesSeconds)} s | ${fixed(300 * peer.doubleBackwardSeconds, 0)} s | ${fixed(peer.ratios.exactTraces, 0)} times faster |`,
      `| the same with one draw of \`probe\` | ${fixed(ours.probeSeconds)} s | ${fixed(300 * peer.doubleBackwardSeconds, 0)} s | ${fixed(peer.ratios.probe, 0)} times faster |`,
      `| one Hutchinson probe, against double backward alone | ${fixed(ours.hutchinsonProbeSeconds, 3)} s | ${fixed(peer.doubleBackwardSeconds, 3)} s | ${fixed(peer.ratios.hutchinsonProbe)} times faster |`,
      `| one training step | ${fixed(ours.trainingStepSeconds, 3)} s | ${fixed(peer.trainingStepSeconds, 3)} s | ${fixed(peer.ratios.trainingStep)} times its time |`,
    );
  }
  lines.push(
    "",
    "## Memory",
    "",
    `Exact traces of ResNet-56 on 512 images: ${fixed(resnet56.seconds, 1)} s, ${fixed(resnet56.peakBytes / 1e9)} GB at its peak, data set included.`,
    "",
    "## Speed-up of pruned models",
    "",
    "ResNet-56 at half of the multiply-accumulates, exported, in ONNX Runtime. ONNX Runtime computes convolutions in blocks of 8 or 16 channels, so that widths which are no multiples of these gain less.",
    "",
    "| widths rounded to | batch | MACs ratio | dense ms | pruned ms | speed-up | share of the MACs ratio |",
    "|---|---|---|---|---|---|---|",
    ...speedUp.map(
      (row) =>
        `| ${row.roundTo} | ${row.batch} | ${fixed(row.macsRatio)} | ${fixed(row.denseMilliseconds)} | ${fixed(row.prunedMilliseconds)} | ${fixed(row.speedUp)} | ${fixed(row.share)} |`,
    ),
  );
  return lines.join("\n");
}
