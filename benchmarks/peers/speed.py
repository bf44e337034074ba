"""The same work in PyTorch, for side-by-side timing. Reads a directory written by the benchmark:
parameters and a batch as .npy files. Prints one JSON document; or which package is missing.

usage: python3 speed.py DIRECTORY THREADS PROBES STEPS
"""
import json
import sys
from pathlib import Path

from packages import require

require("torch", "numpy")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from timing import timed  # noqa: E402


def load(directory):
    parameters = {}
    for path in sorted((directory / "parameters").glob("*.npy")):
        parameters[path.stem] = torch.from_numpy(np.load(path)).clone()
    images = torch.from_numpy(np.load(directory / "images.npy"))
    labels = torch.from_numpy(np.load(directory / "labels.npy")).long()
    return parameters, images, labels


def forward(p, x, training):
    """ResNet for CIFAR with projection shortcuts, from its parameters alone."""

    def norm(name, y):
        return F.batch_norm(
            y,
            p[name + ".running_mean"],
            p[name + ".running_var"],
            p[name + ".weight"],
            p[name + ".bias"],
            training=training,
        )

    x = F.relu(norm("bn1", F.conv2d(x, p["conv1.weight"], padding=1)))
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in p:
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, p[name + ".conv1.weight"], stride=stride, padding=1)
            y = F.relu(norm(name + ".bn1", y))
            y = norm(name + ".bn2", F.conv2d(y, p[name + ".conv2.weight"], padding=1))
            if name + ".downsample.0.weight" in p:
                x = norm(name + ".downsample.1", F.conv2d(x, p[name + ".downsample.0.weight"], stride=stride))
            x = F.relu(x + y)
            block += 1
    return F.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


def main():
    directory, threads, probes, steps = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    parameters, images, labels = load(directory)
    weights = [v for k, v in parameters.items() if k.endswith(".weight") and v.ndim in (2, 4)]
    trained = [v for k, v in parameters.items() if "running" not in k]
    for value in trained:
        value.requires_grad_(True)

    # HAP's loop (pruner/hessian_fact.py): one probe for all weights, a product by double backward.
    loss = F.cross_entropy(forward(parameters, images, False), labels)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)

    def probe():
        signs = [torch.randint_like(w, 2) * 2 - 1 for w in weights]
        return torch.autograd.grad(gradients, weights, grad_outputs=signs, retain_graph=True)

    double_backward = timed(probes, probe)

    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(forward(parameters, images, True), labels).backward()
        optimizer.step()

    training_step = timed(steps, step)
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "loss": float(loss),
                "doubleBackwardSeconds": double_backward,
                "trainingStepSeconds": training_step,
            }
        )
    )


if __name__ == "__main__":
    main()
