"""Training steps and Hessian-vector products of a BERT in PyTorch, for side-by-side timing. Reads a
directory written by the benchmark: parameters under Hugging Face's names and a batch as .npy files, and
case.json. Prints one JSON document; or which package is missing.

usage: python3 encoders.py DIRECTORY THREADS
"""
import json
import math
import sys
from pathlib import Path

from packages import require

require("torch", "numpy")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from timing import timed  # noqa: E402


def attend(q, k, v, bias, fused):
    # Fused attention, where PyTorch has it, is faster but can be differentiated only once.
    if fused and hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores + bias).softmax(-1) @ v


def forward(p, inputs, heads, epsilon, fused):
    """BERT for sequence classification (transformers 4, modeling_bert.py), without dropout."""

    def linear(name, x):
        return F.linear(x, p[name + ".weight"], p[name + ".bias"])

    def norm(name, x):
        weight = p[name + ".weight"]
        return F.layer_norm(x, weight.shape, weight, p[name + ".bias"], epsilon)

    ids, types, mask = (inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    batch, length = ids.shape
    tables = "bert.embeddings."
    x = (
        F.embedding(ids, p[tables + "word_embeddings.weight"])
        + F.embedding(types, p[tables + "token_type_embeddings.weight"])
        + p[tables + "position_embeddings.weight"][:length]
    )
    x = norm(tables + "LayerNorm", x)
    bias = ((1 - mask.float()) * torch.finfo(torch.float32).min)[:, None, None, :]

    def split(y):
        return y.view(batch, length, heads, -1).transpose(1, 2)

    layer = 0
    while f"bert.encoder.layer.{layer}.output.dense.weight" in p:
        name = f"bert.encoder.layer.{layer}."
        q, k, v = (split(linear(name + "attention.self." + part, x)) for part in ("query", "key", "value"))
        y = attend(q, k, v, bias, fused).transpose(1, 2).reshape(batch, length, -1)
        x = norm(name + "attention.output.LayerNorm", x + linear(name + "attention.output.dense", y))
        y = linear(name + "output.dense", F.gelu(linear(name + "intermediate.dense", x)))
        x = norm(name + "output.LayerNorm", x + y)
        layer += 1
    return linear("classifier", torch.tanh(linear("bert.pooler.dense", x[:, 0])))


def main():
    directory, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    case = json.loads((directory / "case.json").read_text())
    array = lambda path: torch.from_numpy(np.load(path)).clone()
    parameters = {path.stem: array(path) for path in sorted((directory / "parameters").glob("*.npy"))}
    inputs = {
        name: array(directory / f"{name}.npy").long()
        for name in ("input_ids", "token_type_ids", "attention_mask", "labels")
    }
    for value in parameters.values():
        value.requires_grad_(True)

    def loss(fused):
        logits = forward(parameters, inputs, case["heads"], case["epsilon"], fused)
        return F.cross_entropy(logits, inputs["labels"])

    differentiated = [parameters[name] for name in case["differentiated"]]

    def signs():
        return [torch.randint_like(value, 2) * 2 - 1 for value in differentiated]

    gradients = torch.autograd.grad(loss(False), differentiated, create_graph=True)

    def probe():
        return torch.autograd.grad(gradients, differentiated, grad_outputs=signs(), retain_graph=True)

    double_backward = timed(case["probes"], probe)
    del gradients

    settings = case["optimizer"]
    weights = set(case["weights"])
    groups = [
        {"params": [v for k, v in parameters.items() if k in weights], "weight_decay": settings["weightDecay"]},
        {"params": [v for k, v in parameters.items() if k not in weights], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=case["learningRate"], betas=settings["betas"], eps=settings["epsilon"]
    )

    def step():
        optimizer.zero_grad()
        loss(True).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), case["clip"])
        optimizer.step()

    with torch.no_grad():
        before = float(loss(True))
    training_step = timed(case["steps"], step, case["warmUp"])
    with torch.no_grad():
        after = float(loss(True))
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "losses": [before, after],
                "trainingStepSeconds": training_step,
                "doubleBackwardSeconds": double_backward,
            }
        )
    )


if __name__ == "__main__":
    main()
