"""Compares model.py of an exported directory with its ONNX file. Needs torch, safetensors, onnxruntime."""
import pathlib
import sys

import numpy
import onnxruntime
import torch

directory = pathlib.Path(sys.argv[1])
compact = directory / "compact"
sys.path.insert(0, str(compact if compact.exists() else directory))
from model import load

SIZES = {"batch": 5, "sequence": 17}
# Tokens that all vocabularies have, the last positions filled up.
TOKENS = {
    "input_ids": lambda random, shape: random.integers(0, 1000, shape),
    "attention_mask": lambda random, shape: numpy.tile(numpy.arange(shape[1]) < 12, (shape[0], 1)),
    "token_type_ids": lambda random, shape: random.integers(0, 2, shape),
}

session = onnxruntime.InferenceSession(directory / "onnx" / "model.onnx")
random = numpy.random.default_rng(0)
feeds = {}
for port in session.get_inputs():
    shape = [SIZES.get(size, size) for size in port.shape]
    if port.name in TOKENS:
        feeds[port.name] = TOKENS[port.name](random, shape).astype(numpy.int64)
    else:
        feeds[port.name] = random.normal(size=shape).astype(numpy.float32)
[expected] = session.run(None, feeds)

model = load()
tensors = {name: torch.from_numpy(feed) for name, feed in feeds.items()}
with torch.no_grad():
    logits = model(**tensors).numpy()
print(f"largest difference {abs(logits - expected).max():.1e}, largest logit {abs(expected).max():.3g}")

# Every parameter is trained.
model.train()(**tensors).square().mean().backward()
without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(without)} tensors without a gradient")
