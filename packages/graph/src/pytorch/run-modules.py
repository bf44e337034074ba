"""Runs modules made from graphs: reads [{source, inputs}], prints what each puts out."""
import json
import pathlib
import sys

import torch

TYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


def run(source, inputs, tensors, training):
    scope = {"__file__": str(pathlib.Path("model.py").resolve())}
    exec(compile(source, "model.py", "exec"), scope)
    tensor = lambda t: torch.tensor(t["data"], dtype=TYPES[t["dtype"]]).reshape(t["shape"])
    model = scope["Model"]({name: tensor(t) for name, t in tensors.items()}).train(training)
    result = model(*(tensor(t) for t in inputs))
    kept = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    dtype = str(result.dtype).removeprefix("torch.")
    flat = result.detach().flatten().to(torch.float64).tolist()
    return {"dtype": dtype, "shape": list(result.shape), "data": flat, "buffers": kept}


print(json.dumps([run(**module) for module in json.load(sys.stdin)]))
