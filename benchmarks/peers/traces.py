"""Traces of the Hessian by others' methods, one in a process, so that time and memory are its own.
Reads a directory written by the benchmark: parameters and a batch as .npy files. Prints one JSON
document: seconds, peak memory and, where the method gives them, the trace of every row of every
convolution; or which package is missing.

usage: python3 traces.py METHOD DIRECTORY THREADS DRAWS
"""
import importlib
import json
import resource
import sys
import time

from packages import require

require("torch", "numpy")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from network import load_batch, load_network  # noqa: E402


def convolutions(network):
    return {f"{name}.weight": m.weight for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def hap(network, images, labels, draws):
    """HAP's loop (pruner/hessian_fact.py): one probe for all weights, a product by double backward."""
    weights = convolutions(network)
    loss = nn.functional.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    rows = {name: torch.zeros(w.shape[0]) for name, w in weights.items()}
    for _ in range(draws):
        signs = [torch.randint_like(w, 2) * 2 - 1 for w in weights.values()]
        products = torch.autograd.grad(gradients, list(weights.values()), grad_outputs=signs, retain_graph=True)
        for name, sign, product in zip(weights, signs, products):
            rows[name] += (sign * product).sum((1, 2, 3)) / draws
    return {name: values.tolist() for name, values in rows.items()}


def pyhessian(network, images, labels, draws):
    """PyHessian's trace: of all parameters together. No tolerance, so that it makes all draws."""
    from pyhessian import hessian

    found = hessian(network, nn.CrossEntropyLoss(), data=(images, labels), cuda=False)
    found.trace(maxIter=draws, tol=0)


def backpack(network, images, labels, draws):
    """BackPACK's exact diagonal of the Gauss-Newton matrix, added up row by row."""
    from backpack import backpack as collect
    from backpack import extend
    from backpack.extensions import DiagGGNExact

    network = extend(network, use_converter=True)
    loss = extend(nn.CrossEntropyLoss())(network(images), labels)
    with collect(DiagGGNExact()):
        loss.backward()
    return {
        name: weight.diag_ggn_exact.sum((1, 2, 3)).tolist()
        for name, weight in network.named_parameters()
        if weight.ndim == 4
    }


# What each imports is imported before the clock runs.
methods = {
    "hap": (hap, []),
    "pyhessian": (pyhessian, ["pyhessian"]),
    "backpack": (backpack, ["backpack", "backpack.extensions"]),
}


def main():
    name, directory, threads, draws = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5])
    method, modules = methods[name]
    require(*modules[:1])
    for module in modules:
        importlib.import_module(module)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, (images, labels) = load_network(directory), load_batch(directory)
    start = time.perf_counter()
    rows = method(network, images, labels, draws)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "seconds": seconds,
                # ru_maxrss is in kilobytes on Linux.
                "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "rows": rows,
            }
        )
    )


main()
