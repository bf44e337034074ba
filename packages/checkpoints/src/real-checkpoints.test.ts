import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryDirectory } from "./fixtures/files.ts";
import { assertFinite, readCheckpoint, toFloat32, writeSafetensors } from "./index.ts";

// Published CIFAR-10 networks, which are not part of the repository.
const directory = fileURLToPath(
  new URL("../../../../shared/data/cifar10-resnets/", import.meta.url),
);

const inTemporary = temporaryDirectory();

// The numbers are what torch.load gives.
const checkpoints = [
  {
    name: "cifar10_resnet56-187c023a.pt",
    format: "pytorch-zip",
    parameters: 855_770,
    tensors: 344,
    first: [-0.05675137788057327, -0.09956660121679306, 0.02268321067094803],
    last: [-0.012112556025385857, -0.003553390270099044, 0.03834029287099838],
    metadata: {},
  },
  {
    name: "cifar10_resnet20-4118986f.pt",
    format: "pytorch-zip",
    parameters: 272_474,
    tensors: 128,
    first: [0.10722458362579346, 0.23039667308330536, 0.21197165548801422],
    last: [-0.008414060808718204, -0.008147068321704865, 0.040229786187410355],
    metadata: {},
  },
  {
    name: "resnet20-12fca82f.th",
    format: "pytorch-legacy",
    parameters: 269_722,
    tensors: 97,
    first: [-0.13818146288394928, -0.1624176800251007, 0.8207383155822754],
    last: [0.19355906546115875, -0.3431008756160736, 0.11120541393756866],
    metadata: { best_prec1: "91.78000183105469" },
  },
];

for (const expected of checkpoints) {
  const path = directory + expected.name;
  const isThere = existsSync(path);
  const note = isThere ? "" : ` (skipped: needs ../shared/data/cifar10-resnets/${expected.name})`;

  test.skipIf(!isThere)(`${expected.name} is read as PyTorch reads it${note}`, async () => {
    const checkpoint = await readCheckpoint(path);
    const { format, metadata, tensors } = checkpoint;
    expect({ format, metadata, tensors: tensors.size }).toEqual({
      format: expected.format,
      metadata: expected.metadata,
      tensors: expected.tensors,
    });
    const parameters = [...tensors]
      .filter(([name]) => !/running_(mean|var)|num_batches_tracked/.test(name))
      .reduce((sum, [, { shape }]) => sum + shape.reduce((count, size) => count * size, 1), 0);
    expect(parameters).toBe(expected.parameters);
    expect([...toFloat32(tensors.get("conv1.weight")!).slice(0, 3)]).toEqual(expected.first);
    expect([...toFloat32([...tensors.values()].at(-1)!).slice(0, 3)]).toEqual(expected.last);
    for (const [name, tensor] of tensors) assertFinite(tensor, name, path);

    const copy = inTemporary(`${expected.name}.safetensors`);
    await writeSafetensors(copy, tensors, metadata);
    const again = await readCheckpoint(copy);
    for (const [name, { dtype, shape, data }] of tensors) {
      const { data: copied, ...rest } = again.tensors.get(name)!;
      expect(rest).toEqual({ dtype, shape });
      expect(Buffer.compare(copied, data)).toBe(0);
    }
  });
}
