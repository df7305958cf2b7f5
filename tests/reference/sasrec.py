"""Golden numbers of SASRec: user vectors, states, full cross-entropy and every gradient.

Run with torch and safetensors installed: python sasrec.py
Writes golden/sasrec.safetensors. The model here shares no code with the product: it is written with
torch's own layer norm, attention and cross-entropy.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

WIDTH, LAYERS, HEADS, INNER, MAX_HISTORY, ITEMS = 8, 2, 2, 12, 6, 11
HISTORIES = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 11]]
TEMPERATURE, INIT_STD = 0.5, 0.02
TARGETS = [[1, 4, 1, 5, 9], [2, 6], [5, 3, 11, 8]]


def parameters():
    """Random values everywhere, biases and norms included, so that nothing can hide."""
    torch.manual_seed(20)
    shapes = {
        "item_embeddings.weight": (ITEMS + 1, WIDTH),
        "position_embeddings.weight": (MAX_HISTORY, WIDTH),
        "final_norm.weight": (WIDTH,),
        "final_norm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, shape in {
            "attention_norm.weight": (WIDTH,),
            "attention_norm.bias": (WIDTH,),
            "attention.q_proj.weight": (WIDTH, WIDTH),
            "attention.k_proj.weight": (WIDTH, WIDTH),
            "attention.v_proj.weight": (WIDTH, WIDTH),
            "attention.o_proj.weight": (WIDTH, WIDTH),
            "mlp_norm.weight": (WIDTH,),
            "mlp_norm.bias": (WIDTH,),
            "mlp.up_proj.weight": (INNER, WIDTH),
            "mlp.up_proj.bias": (INNER,),
            "mlp.down_proj.weight": (WIDTH, INNER),
            "mlp.down_proj.bias": (WIDTH,),
        }.items():
            shapes[f"layers.{layer}.{name}"] = shape
    values = {}
    for name, shape in shapes.items():
        value = 0.3 * torch.randn(shape)
        if name.endswith("norm.weight"):
            value = 1 + value
        if name == "item_embeddings.weight":
            value[0] = 0
        values[name] = value.requires_grad_()
    return values


def forward(p, history, cosine):
    """States after each block of one unpadded history; the last after the final norm."""
    length = len(history)
    items = p["item_embeddings.weight"][history]
    x = F.normalize(items, dim=-1) * (INIT_STD * WIDTH) if cosine else items * math.sqrt(WIDTH)
    x = x + p["position_embeddings.weight"][:length]

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"], eps=1e-5)

    states = []
    for layer in range(LAYERS):
        prefix = f"layers.{layer}"
        h = norm(f"{prefix}.attention_norm", x)
        q, k, v = (
            F.linear(h, p[f"{prefix}.attention.{part}_proj.weight"])
            .view(length, HEADS, WIDTH // HEADS)
            .transpose(0, 1)
            for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(0, 1).reshape(length, WIDTH)
        x = x + F.linear(mixed, p[f"{prefix}.attention.o_proj.weight"])
        h = norm(f"{prefix}.mlp_norm", x)
        up, down = (f"{prefix}.mlp.{part}_proj" for part in ("up", "down"))
        h = F.relu(F.linear(h, p[f"{up}.weight"], p[f"{up}.bias"]))
        x = x + F.linear(h, p[f"{down}.weight"], p[f"{down}.bias"])
        states.append(x)
    states[-1] = norm("final_norm", x)
    if cosine:
        states[-1] = F.normalize(states[-1], dim=-1) / TEMPERATURE
    return states


def outcome(p, cosine):
    """States, loss and gradients, with dot products or with cosines over a temperature."""
    for value in p.values():
        value.grad = None
    states = [forward(p, history, cosine) for history in HISTORIES]
    users = torch.cat([s[-1] for s in states])
    items = p["item_embeddings.weight"][1:]
    logits = users @ (F.normalize(items, dim=-1) if cosine else items).T
    targets = torch.tensor([t for row in TARGETS for t in row])
    loss = F.cross_entropy(logits, targets - 1)
    loss.backward()
    found = {f"gradient.{name}": value.grad.clone() for name, value in p.items()}
    found["state.1"] = torch.cat([s[0] for s in states]).detach()
    found["user_vectors"] = users.detach()
    found["loss"] = loss.detach()
    return found


def main():
    p = parameters()
    golden = {f"parameter.{name}": value.detach() for name, value in p.items()}
    golden |= outcome(p, cosine=False)
    golden |= {f"cosine.{name}": value for name, value in outcome(p, cosine=True).items()}
    path = Path(__file__).parent / "golden" / "sasrec.safetensors"
    save_file({k: v.contiguous() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors, loss {golden['loss'].item():.6f}")


if __name__ == "__main__":
    main()
