"""Pruning by Torch-Pruning, by one importance in a process, so that time and memory are its own. Reads
a directory written by the benchmark: parameters as .npy files, CIFAR-10's binary files and case.json.
Scores the network on the first training images, prunes it to its budget, tunes and judges it. Prints
one JSON document; or which package is missing.

usage: python3 pruning.py DIRECTORY
"""
import copy
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path

from packages import require

require("torch", "numpy", "torch_pruning")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torch_pruning as tp  # noqa: E402
from torch import nn  # noqa: E402

from network import load_network  # noqa: E402

# Pixels that images are shifted by at most, as in Espalier.
PADDING = 4


def read_records(directory, pattern):
    """Pixels [n, 3, 32, 32] as bytes, and labels."""
    parts = [np.fromfile(path, np.uint8).reshape(-1, 3073) for path in sorted(directory.glob(pattern))]
    records = torch.from_numpy(np.concatenate(parts))
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def normalizer(case):
    mean, std = (torch.tensor(case[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return lambda pixels: (pixels / 255 - mean) / std


def augmented(pixels, generator):
    """Each image shifted and mirrored at random, black outside."""
    padded = F.pad(pixels, (PADDING,) * 4)
    shifts = torch.randint(2 * PADDING + 1, (len(pixels), 2), generator=generator).tolist()
    mirrored = torch.randint(2, (len(pixels),), generator=generator).tolist()
    crops = [image[:, y : y + 32, x : x + 32] for image, (y, x) in zip(padded, shifts)]
    return torch.stack([crop.flip(2) if mirror else crop for crop, mirror in zip(crops, mirrored)])


def size_of(network):
    """Parameters, and multiply-accumulates of convolutions and linear layers, of one image."""
    macs = 0

    def count(module, _, output):
        nonlocal macs
        macs += output[0].numel() * module.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return {"parameters": sum(p.numel() for p in network.parameters()), "macs": macs}


def judge(network, pixels, labels, normalize):
    network.eval()
    correct = 0
    with torch.no_grad():
        for batch, wanted in zip(pixels.split(250), labels.split(250)):
            correct += (network(normalize(batch)).argmax(1) == wanted).sum().item()
    return correct / len(labels)


def magnitude(network, images, labels):
    return tp.importance.GroupMagnitudeImportance()


def taylor(network, images, labels):
    """Scores are of the gradient of the mean loss."""
    for batch, wanted in zip(images.split(64), labels.split(64)):
        (F.cross_entropy(network(batch), wanted, reduction="sum") / len(labels)).backward()
    return tp.importance.GroupTaylorImportance()


def hessian(network, images, labels):
    """As its documentation has it, but for one image at a time, which takes less for the same."""
    importance = tp.importance.GroupHessianImportance()
    importance.zero_grad()
    for image, wanted in zip(images.split(1), labels.split(1)):
        network.zero_grad()
        F.cross_entropy(network(image), wanted).backward()
        importance.accumulate_grad(network)
    return importance


importances = {"magnitude": magnitude, "taylor": taylor, "hessian": hessian}


def pruned(network, importance, ratio, round_to):
    """A copy without this share of all channels, ranked together."""
    # Together, since an importance can refer to parameters; gradients are not copied with them.
    copied, importance = copy.deepcopy((network, importance))
    for parameter, original in zip(copied.parameters(), network.parameters()):
        parameter.grad = None if original.grad is None else original.grad.clone()
    pruner = tp.pruner.BasePruner(
        copied,
        torch.zeros(1, 3, 32, 32),
        importance,
        global_pruning=True,
        pruning_ratio=ratio,
        round_to=round_to,
        ignored_layers=[copied.fc],
    )
    pruner.step()
    return copied


def find_ratio(network, importance, case):
    """The smallest ratio that keeps to the budget. More is not always less: a layer of which nothing
    would be left is left whole, so all ratios are tried from the smallest on."""
    most = case["keep"] * size_of(network)["macs"]

    def fits(ratio):
        return size_of(pruned(network, importance, ratio, case["roundTo"]))["macs"] <= most

    step = 1 / 32
    found = next((i * step for i in range(1, 32) if fits(i * step)), None)
    if found is None:
        raise SystemExit(f"Torch-Pruning: expected a ratio that keeps {case['keep']} of the MACs, found none")
    # A channel of a ResNet-20 is a 448th.
    for _ in range(5):
        step /= 2
        if fits(found - step):
            found -= step
    return found


def tune(network, pixels, labels, normalize, settings, learning_rates, generator):
    """As Espalier does: norms and biases do not decay, a batch that is not full is left out."""
    network.train()
    parameters = list(network.parameters())
    decay, momentum, nesterov = (settings["optimizer"][name] for name in ("weightDecay", "momentum", "nesterov"))
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0},
        ],
        lr=learning_rates[0],
        momentum=momentum,
        nesterov=nesterov,
    )
    batch = settings["batchSize"]
    steps = len(labels) // batch
    for step, rate in enumerate(learning_rates):
        if step % steps == 0:
            order = torch.randperm(len(labels), generator=generator)
        chosen = order[step % steps * batch :][:batch]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(network(normalize(augmented(pixels[chosen], generator))), labels[chosen]).backward()
        optimizer.step()


def peak_bytes():
    # ru_maxrss is in kilobytes on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    directory = Path(sys.argv[1])
    case = json.loads((directory / "case.json").read_text())
    torch.set_num_threads(case["threads"])
    generator = torch.Generator().manual_seed(case["seed"])
    network = load_network(directory)
    train, test = read_records(directory, "data_batch_*.bin"), read_records(directory, "test_batch.bin")
    normalize = normalizer(case)

    start = time.perf_counter()
    images = normalize(train[0][: case["samples"]])
    importance = importances[case["importance"]](network, images, train[1][: case["samples"]])
    scored = time.perf_counter()
    ratio = find_ratio(network, importance, case)
    found = time.perf_counter()
    small = pruned(network, importance, ratio, case["roundTo"])
    end = time.perf_counter()
    peak = peak_bytes()

    result = {
        "versions": {"PyTorch": torch.__version__, "Torch-Pruning": importlib.metadata.version("torch-pruning")},
        "seconds": scored - start + end - found,
        "searchSeconds": found - scored,
        "ratio": ratio,
        "peakBytes": peak,
        "dense": {**size_of(network), "accuracy": judge(network, *test, normalize)},
        "pruned": {**size_of(small), "accuracy": judge(small, *test, normalize)},
    }
    start = time.perf_counter()
    tune(small, *train, normalize, case["tune"], case["learningRates"], generator)
    result["tuningSeconds"] = time.perf_counter() - start
    result["tuned"] = judge(small, *test, normalize)
    print(json.dumps(result))


main()
