"""Makes src/fixtures with real PyTorch, safetensors and NumPy.

    python make-fixtures.py <directory>

Run it once with PyTorch 1.13 and once with 2.x. The values depend on nothing but this file; the
containers differ between versions, which is the point. `expected.safetensors` and the other files of
the safetensors package are made where that is installed.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

directory = Path(sys.argv[1])
directory.mkdir(parents=True, exist_ok=True)
version = ".".join(torch.__version__.split(".")[:2])


def ramp(*shape, dtype=torch.float32):
    return torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)


shared = ramp(4, 3) / 4
tensors = OrderedDict(
    f64=torch.tensor([1 / 3, -1e300, float("inf")], dtype=torch.float64),
    f32=torch.tensor([[0.1, -2.5], [1e-40, float("nan")]]),
    f16=torch.tensor([1.5, -65504, 6e-8, float("inf"), -0.0, 1 / 3], dtype=torch.float16),
    bf16=torch.tensor([1.5, -3e38, 1e-40, float("nan"), 1 / 3], dtype=torch.bfloat16),
    i64=torch.tensor([-(2**63), 2**53 + 1, 3]),
    i32=torch.tensor([-(2**31), 7], dtype=torch.int32),
    i16=torch.tensor([-(2**15), 7], dtype=torch.int16),
    i8=torch.tensor([-128, 127], dtype=torch.int8),
    u8=torch.tensor([0, 255], dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(ramp(2, 2)),
    rows_of_shared=shared[1:3],
    column_of_shared=shared[:, 1],
    transposed_shared=shared.t(),
    expanded=ramp(3).expand(2, 3),
    every_second_i64=ramp(6, dtype=torch.int64)[1::2],
    channels_last=ramp(2, 3, 2, 2).to(memory_format=torch.channels_last),
)
torch.save(tensors, directory / f"torch-{version}-zip.pt")
torch.save(
    tensors, directory / f"torch-{version}-legacy.pt", _use_new_zipfile_serialization=False
)

# A training program's file: a wrapped module, which has _metadata, an optimizer and single values.
model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
with torch.no_grad():
    for index, parameter in enumerate(model.parameters()):
        parameter.copy_(ramp(*parameter.shape) + index)
model = torch.nn.DataParallel(model) if version == "1.13" else model
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
training = {
    "epoch": 7,
    "arch": "resnet20",
    "model_state_dict": model.state_dict(),
    "best_prec1": torch.tensor(91.75),
    "done": False,
    "optimizer": optimizer.state_dict(),
}
torch.save(
    training,
    directory / f"torch-{version}-training.pt",
    _use_new_zipfile_serialization=version != "1.13",
)

if version != "1.13":
    for protocol in 1, 4, 5:
        torch.save(
            {"weight": ramp(2, 2), "count": 2**40, "flag": True, "bytes": b"x" if protocol > 2 else None},
            directory / f"torch-{version}-protocol-{protocol}.pt",
            pickle_protocol=protocol,
        )
    unsigned = {name: ramp(3).to(getattr(torch, name)) for name in ("uint16", "uint32", "uint64")}
    torch.save(unsigned, directory / f"torch-{version}-unsigned.pt")

for name, array in {
    "float32": np.arange(6, dtype="<f4").reshape(2, 3),
    "int64": np.arange(3, dtype="<i8"),
    "scalar": np.array(1.5, dtype="<f8"),
    "big-endian": np.arange(3, dtype=">f4"),
    "fortran": np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3)),
    "object": np.array([{}], dtype=object),
    "structured": np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]),
}.items():
    np.save(directory / f"{name}.npy", array, allow_pickle=True)

try:
    from safetensors.torch import save_file
except ImportError:
    sys.exit()

save_file(
    {name: value.detach().contiguous().clone() for name, value in tensors.items()},
    directory / "expected.safetensors",
)
# One metadata entry only: the package orders several at random.
save_file(
    {
        "10": ramp(2),
        "9": ramp(1),
        'quoted "name"\n\u2028\x7f/': ramp(1, dtype=torch.uint8),
        "\uff5a": ramp(1),
        "\U0001f333": ramp(1),
        "e\u0301": ramp(3, dtype=torch.float16),
        "wide": ramp(2, dtype=torch.int64),
        "__proto__": ramp(1),
        "empty": torch.zeros(0, 2),
    },
    directory / "names.safetensors",
    {"note": "espalier\u00e9\n"},
)
