"""What the scripts here have in common: a ResNet for CIFAR from files that the benchmark wrote."""
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """Modules only, no functions: BackPACK and Torch-Pruning follow modules."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.downsample(x))


class Network(nn.Module):
    def __init__(self, blocks, widths, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before = widths[0]
        for stage, width in enumerate(widths):
            strides = [2 if stage > 0 and block == 0 else 1 for block in range(blocks)]
            layers = [Block(before if block == 0 else width, width, s) for block, s in enumerate(strides)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            before = width
        self.pool = nn.AvgPool2d(8)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.pool(x)))


def load_network(directory):
    """The network in evaluation mode."""
    parameters = {
        path.stem: torch.from_numpy(np.load(path)).clone()
        for path in sorted((Path(directory) / "parameters").glob("*.npy"))
    }
    widths = [parameters[f"layer{stage}.0.conv1.weight"].shape[0] for stage in (1, 2, 3)]
    blocks = sum(1 for name in parameters if name.startswith("layer1.") and name.endswith(".conv1.weight"))
    network = Network(blocks, widths, parameters["fc.weight"].shape[0])
    missing, unexpected = network.load_state_dict(parameters, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise SystemExit(f"{directory}: expected the parameters of a ResNet for CIFAR, got others: {wrong[:3]}")
    return network.eval()


def load_batch(directory):
    """Images and labels."""
    images, labels = (torch.from_numpy(np.load(Path(directory) / f"{name}.npy")) for name in ("images", "labels"))
    return images, labels.long()
