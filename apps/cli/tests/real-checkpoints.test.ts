/** @file Real checkpoints on real images, where they are at hand. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  applyDecisions,
  componentGroups,
  estimate,
  makePlan,
  measureSensitivity,
  Random,
  selectSamples,
  sizeOfModel,
  spearman,
} from "@espalier/core";
import { defaultCacheDirectory } from "@espalier/data";
import { defaultPlan, defaultSensitivity, loadSource, openTask } from "@espalier/pipeline";
import { createOnnxExecutor } from "@espalier/runtime-onnx";
import { evaluate, reestimateStatistics } from "@espalier/train";
import { cifarResNet } from "@espalier/vision";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const checkpoints = join(root, "../shared/data/cifar10-resnets");
const example = join(root, "examples/resnet20-cifar10");
const images = existsSync(join(defaultCacheDirectory(), "datasets/cifar10/test_batch.bin"));
const present = images && existsSync(checkpoints);
const executor = createOnnxExecutor();
const families = [cifarResNet];
const first = (count: number) => [...Array(count).keys()];

async function accuracyOf(source: string, count: number): Promise<number> {
  const { model } = await loadSource(source, families);
  const task = await openTask("cifar10");
  const test = selectSamples(task.test(model), first(count));
  return (await evaluate(model, test, { executor, batchSize: 250 })).accuracy;
}

describe.skipIf(!present)(
  "checkpoints in ../shared/data on CIFAR-10 (skipped where either is absent)",
  () => {
    test.each([
      ["resnet20-cifar10:cifar10_resnet20-4118986f.pt", 0.926],
      ["resnet56-cifar10:cifar10_resnet56-187c023a.pt", 0.9437],
    ])("%s classifies all 10,000 test images as published", async (name, published) => {
      const [preset, file] = name.split(":");
      const accuracy = await accuracyOf(`${preset}:${join(checkpoints, file)}`, 10_000);
      expect(Math.abs(accuracy - published)).toBeLessThan(0.0005);
    });

    test("the one with zero-padded shortcuts, in PyTorch's older format", async () => {
      const accuracy = await accuracyOf(join(checkpoints, "resnet20-12fca82f.th"), 2000);
      expect(accuracy).toBeGreaterThan(0.91);
    });

    test("one draw of probe ranks channels as exact does", async () => {
      const { model } = await loadSource(
        join(checkpoints, "cifar10_resnet20-4118986f.pt"),
        families,
      );
      const task = await openTask("cifar10");
      const groups = componentGroups(model, "apart");
      const common = {
        executor,
        samples: selectSamples(task.train(model), first(128)),
        quantity: "trace" as const,
        draws: 1,
        temperature: 1,
        batchSize: 64,
        random: new Random(0),
      };
      const exact = await estimate(model, groups, { ...common, estimator: "exact" });
      const probe = await estimate(model, groups, { ...common, estimator: "probe" });
      expect(exact.mean.every((trace) => trace >= 0)).toBe(true);
      expect(spearman(probe.mean, exact.mean)).toBeGreaterThan(0.95);
    });

    test("removal finds what can go: a fifth of the channels costs little", async () => {
      const { model } = await loadSource(
        join(checkpoints, "cifar10_resnet56-187c023a.pt"),
        families,
      );
      const task = await openTask("cifar10");
      const training = task.train(model);
      const sensitivity = await measureSensitivity(model, {
        ...defaultSensitivity,
        estimator: "probe",
        coupling: "apart",
        samples: selectSamples(training, first(128)),
        executor,
        batchSize: 64,
        random: new Random(0),
      });
      const plan = makePlan(model, sensitivity, {
        ...defaultPlan({ of: "components", keep: 0.8 }),
        rankBy: "score",
        wholeBranches: false,
        roundTo: 1,
      });
      const groups = sensitivity.groups.map(({ group }) => group);
      const pruned = applyDecisions(model, groups, plan.decisions);
      expect(sizeOfModel(pruned).macs).toBeLessThan(0.9 * sizeOfModel(model).macs);
      const calibrated = await reestimateStatistics(pruned, selectSamples(training, first(512)), {
        executor,
        batchSize: 256,
        augmentation: new Random(1),
      });
      const test = selectSamples(task.test(model), first(2000));
      const { accuracy } = await evaluate(calibrated, test, { executor, batchSize: 250 });
      expect(accuracy).toBeGreaterThan(0.88);
    });

    test("a network trained on augmented images needs their statistics", async () => {
      const path = join(checkpoints, "cifar10_resnet20-4118986f.pt");
      const { model } = await loadSource(path, families);
      const task = await openTask("cifar10");
      const training = selectSamples(task.train(model), first(1024));
      const test = selectSamples(task.test(model), first(2000));
      const accuracyWith = async (augmentation: Random | undefined) => {
        const options = { executor, batchSize: 256, augmentation };
        const calibrated = await reestimateStatistics(model, training, options);
        return (await evaluate(calibrated, test, { executor, batchSize: 250 })).accuracy;
      };
      const augmented = await accuracyWith(new Random(0));
      expect(augmented).toBeGreaterThan(0.915);
      expect(augmented).toBeGreaterThan((await accuracyWith(undefined)) + 0.02);
    });
  },
);

test.skipIf(!images)(
  "the network that ships in examples/ classifies as its page says (skipped where CIFAR-10 is not cached)",
  async () => {
    expect(await accuracyOf(example, 10_000)).toBeCloseTo(0.9133, 3);
  },
);
