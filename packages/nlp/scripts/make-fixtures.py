"""Makes src/fixtures: tiny seeded models and what the reference implementation puts out for them.

    pip install transformers==4.36.2 tokenizers==0.15.2 safetensors    # with PyTorch 1.13
    python scripts/make-fixtures.py

Each folder is a checkpoint as `save_pretrained` writes it, with expected.safetensors beside it: token
ids, the mask, types (as float32), hidden states after the embeddings and after each layer, outputs.
"""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent / "src" / "fixtures"

WIDE = dict(
    vocab_size=31, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=10, max_position_embeddings=16, type_vocab_size=2,
)
DISTILLED = dict(
    vocab_size=31, dim=12, n_layers=2, n_heads=3, hidden_dim=10, max_position_embeddings=16,
)

MODELS = {
    "bert": (transformers.BertForSequenceClassification, transformers.BertConfig(**WIDE, num_labels=3)),
    "bert-encoder": (transformers.BertModel, transformers.BertConfig(**WIDE, hidden_act="gelu_new")),
    "bert-regression": (transformers.BertForSequenceClassification, transformers.BertConfig(**WIDE, num_labels=1)),
    "roberta": (
        transformers.RobertaForSequenceClassification,
        transformers.RobertaConfig(**{**WIDE, "type_vocab_size": 1}, num_labels=2, pad_token_id=1),
    ),
    "distilbert": (
        transformers.DistilBertForSequenceClassification,
        transformers.DistilBertConfig(**DISTILLED, num_labels=2, seq_classif_dropout=0.0),
    ),
    "electra": (
        transformers.ElectraForSequenceClassification,
        transformers.ElectraConfig(**WIDE, embedding_size=8, num_labels=2),
    ),
}


def make(name, kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            # Weights as small as fresh ones would leave all attention even.
            scale = "LayerNorm.weight" in key or "layer_norm.weight" in key
            parameter.copy_(1 + 0.2 * noise if scale else 0.4 * noise)
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    # One checkpoint in PyTorch's own format.
    model.save_pretrained(folder, safe_serialization=name != "bert-regression")
    padding = config.pad_token_id
    ids = torch.tensor([[4, 9, 30, 6, 11, 17, 5], [4, 8, 2, 5, padding, padding, padding]])
    mask = (ids != padding).long()
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = types
    else:
        types = torch.zeros_like(types)
    with torch.no_grad():
        result = model(**inputs, output_hidden_states=True)
    expected = {
        "input_ids": ids.float(), "attention_mask": mask.float(), "token_type_ids": types.float(),
        **{f"hidden.{i}": state.contiguous() for i, state in enumerate(result.hidden_states)},
        "outputs": (result.logits if "logits" in result else result.pooler_output).contiguous(),
    }
    save_file(expected, folder / "expected.safetensors")


for name, (kind, config) in MODELS.items():
    make(name, kind, config)
