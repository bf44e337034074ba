"""Compares what Python's Transformers makes of an exported directory with the ONNX files in it.

    pip install transformers==4.27.4 safetensors onnxruntime==1.18.1    # with PyTorch 1.13
    python scripts/compare-export.py DIR FILE.tsv

The texts are sentence1 and sentence2 of the first 64 rows of FILE.tsv, such as RTE's dev.tsv.
"""

import csv
import sys
from pathlib import Path

import onnxruntime
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

directory, table = Path(sys.argv[1]), sys.argv[2]
with open(table, encoding="utf-8-sig") as lines:
    rows = [row for row, _ in zip(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), range(64))]

tokenizer = AutoTokenizer.from_pretrained(directory)
model, found = AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
assert not any(found.values()), found
encoded = tokenizer(
    [row["sentence1"] for row in rows], [row["sentence2"] for row in rows],
    padding=True, truncation=True, return_tensors="pt",
)
with torch.no_grad():
    expected = model.eval()(**encoded).logits.numpy()
print(f"{len(rows)} texts of up to {encoded['input_ids'].shape[1]} tokens, largest logit {abs(expected).max():.4f}")
for name in ("model", "model_fp16", "model_quantized"):
    session = onnxruntime.InferenceSession(str(directory / "onnx" / f"{name}.onnx"))
    wanted = {each.name for each in session.get_inputs()}
    logits, = session.run(["logits"], {key: value.numpy() for key, value in encoded.items() if key in wanted})
    alike = (logits.argmax(-1) == expected.argmax(-1)).mean()
    print(f"{name}: largest difference {abs(logits - expected).max():.2e}, same answer {100 * alike:.1f} %")
