"""Golden user vectors and states of the language-model recommender, from plain PyTorch.

Written from the formulas, one history at a time, without padding, batches or transformers.
Takes the tiny Llama of golden/llama.safetensors and writes golden/recommender.safetensors.

Needs: torch safetensors. Run: python recommender.py (after llama.py)
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden"
LAYERS, HIDDEN, HEADS, KV_HEADS, DIM = 3, 32, 4, 2, 8
EPS, THETA = 1e-5, 10000.0
ITEMS, ITEM_DIM, PREFIX, SUFFIX = 11, 6, 3, 2
HISTORIES = [[3], [1, 2, 11, 4, 5], [7, 7, 9]]


def norm(x, weight):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def rotate(x):
    """x [tokens, heads, DIM]: pairs (i, i + DIM / 2) turn by position * THETA^(-2i / DIM)."""
    half = DIM // 2
    angle = torch.arange(x.shape[0])[:, None] * THETA ** (-2.0 * torch.arange(half) / DIM)
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention(x, w):
    tokens = x.shape[0]
    q = rotate((x @ w["q_proj"].T).view(tokens, HEADS, DIM))
    k = rotate((x @ w["k_proj"].T).view(tokens, KV_HEADS, DIM))
    v = (x @ w["v_proj"].T).view(tokens, KV_HEADS, DIM)
    out = torch.zeros(tokens, HEADS, DIM)
    for head in range(HEADS):
        shared = head // (HEADS // KV_HEADS)
        for i in range(tokens):
            scores = k[: i + 1, shared] @ q[i, head] / DIM**0.5
            out[i, head] = torch.softmax(scores, 0) @ v[: i + 1, shared]
    return out.reshape(tokens, HEADS * DIM) @ w["o_proj"].T


def body(x, weights):
    """Residual streams after each layer; the last after the final norm."""
    after = []
    for layer in range(LAYERS):
        get = lambda name: weights[f"model.layers.{layer}.{name}.weight"]
        w = {name: get(f"self_attn.{name}") for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        x = x + attention(norm(x, get("input_layernorm")), w)
        y = norm(x, get("post_attention_layernorm"))
        gate = y @ get("mlp.gate_proj").T
        x = x + (gate * torch.sigmoid(gate) * (y @ get("mlp.up_proj").T)) @ get("mlp.down_proj").T
        after.append(x)
    after[-1] = norm(x, weights["model.norm.weight"])
    return after


def main():
    weights = load_file(GOLDEN / "llama.safetensors")
    torch.manual_seed(4)
    own = {
        "item_embeddings.weight": torch.randn(ITEMS + 1, ITEM_DIM),
        "item_projection.weight": torch.randn(HIDDEN, ITEM_DIM),
        "item_projection.bias": torch.randn(HIDDEN),
        "user_projection.weight": 0.2 * torch.randn(ITEM_DIM, HIDDEN),
    }
    own["item_embeddings.weight"][0] = 0
    prompt = torch.randn(PREFIX + SUFFIX, HIDDEN)
    golden = {**own, "prompt": prompt}
    for row, history in enumerate(HISTORIES):
        items = own["item_embeddings.weight"][history] @ own["item_projection.weight"].T
        items = items + own["item_projection.bias"]
        for readout in ("item", "response", "bare"):
            prefix = prompt[:0] if readout == "bare" else prompt[:PREFIX]
            suffix = prompt[PREFIX:] if readout == "response" else prompt[:0]
            after = body(torch.cat([prefix, items, suffix]), weights)
            places = slice(-1, None) if readout == "response" else slice(len(prefix), None)
            golden[f"{readout}.{row}.user"] = after[-1][places] @ own["user_projection.weight"].T
            golden[f"{readout}.{row}.state.2"] = after[1][places]
            golden[f"{readout}.{row}.state.3"] = after[2][places]
    save_file({k: v.contiguous().clone() for k, v in golden.items()}, GOLDEN / "recommender.safetensors")


if __name__ == "__main__":
    main()
