"""Golden numbers of the text encoder: vectors of a tiny random BERT, from transformers.

Run with torch, transformers and safetensors installed: python bert.py
Writes golden/bert.safetensors. With the folder of all-MiniLM-L6-v2 (`slmrec-distill fetch minilm`
prints it) as argument, also golden/minilm.json: tokens of some titles, the first values of their
vectors, and the cosine of each pair.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

GOLDEN = Path(__file__).parent / "golden"
TEXTS = [[2, 5, 7, 11, 3], [2, 3], [2, 19, 4, 4, 8, 13, 3]]
TITLES = [
    "Toy Story (1995)",
    "Postscript: Die Verurteilten – «Ça ira», naïve café! 東京 $5.99",
    "Swingline Stapler, Commercial Desktop, 20 Sheet Capacity, Black",
    "Bostitch Full Strip Desk Stapler",
]


def pooled(model, ids, mask):
    """As sentence-transformers does it for this model: mean over real tokens, then unit length."""
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).float()
    means = (states * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(means, dim=1)


def padded(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def tiny():
    torch.manual_seed(20)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=7,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    golden = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Random everywhere, biases and norms included, so that nothing can hide.
            value = 0.4 * torch.randn(parameter.shape)
            parameter.copy_(1 + value if name.endswith("LayerNorm.weight") else value)
            golden[f"parameter.{name}"] = parameter.detach().clone()
    golden["vectors"] = pooled(model, *padded(TEXTS)).contiguous()
    save_file(golden, GOLDEN / "bert.safetensors")
    print(golden["vectors"])


def real(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = [tokenizer(title)["input_ids"] for title in TITLES]
    vectors = pooled(model, *padded(tokens))
    golden = {
        "titles": [
            {"text": text, "tokens": ids, "first_values": vector[:8].tolist()}
            for text, ids, vector in zip(TITLES, tokens, vectors)
        ],
        "cosines": (vectors @ vectors.T).tolist(),
    }
    (GOLDEN / "minilm.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(vectors @ vectors.T)


if __name__ == "__main__":
    tiny()
    if len(sys.argv) > 1:
        real(sys.argv[1])
