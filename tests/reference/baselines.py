"""Golden numbers of GRU4Rec and BERT4Rec: user vectors and gradients of all parameters.

Run with torch and safetensors installed: python baselines.py
Writes golden/baselines.safetensors. The loss is the sum of the user vectors times `upstream`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ITEMS, WIDTH, LAYERS, HEADS, INNER, HISTORY = 7, 6, 2, 2, 8, 4
# Padded on the right; row 1 has two items. 8 is the mask.
HISTORIES = torch.tensor([[3, 1, 4], [2, 6, 0]])
MASKED = torch.tensor([[3, 8, 4], [8, 6, 0]])
LENGTHS = [3, 2]


def parameter(*shape):
    return (torch.randn(shape) * 0.4).requires_grad_()


def gru4rec(golden):
    p = {"item_embeddings.weight": parameter(ITEMS + 1, WIDTH)}
    gru = torch.nn.GRU(WIDTH, WIDTH, LAYERS, batch_first=True)
    output = torch.nn.Linear(WIDTH, WIDTH)
    p |= {f"gru.{name}": value for name, value in gru.named_parameters()}
    p |= {f"output.{name}": value for name, value in output.named_parameters()}
    states, _ = gru(p["item_embeddings.weight"][HISTORIES])
    write(golden, "gru4rec", p, output(states))


def bert4rec(golden):
    p = {
        "item_embeddings.weight": parameter(ITEMS + 1, WIDTH),
        "mask_embedding.weight": parameter(1, WIDTH),
        "position_embeddings.weight": parameter(HISTORY + 1, WIDTH),
    }
    norms = [f"layers.{l}.{part}" for l in range(LAYERS) for part in ("attention_norm", "mlp_norm")]
    for name in norms + ["final_norm", "output_norm"]:
        p[f"{name}.weight"], p[f"{name}.bias"] = parameter(WIDTH), parameter(WIDTH)
    shapes = {"output": (WIDTH, WIDTH)}
    for l in range(LAYERS):
        for part in "qkvo":
            shapes[f"layers.{l}.attention.{part}_proj"] = (WIDTH, WIDTH)
        shapes[f"layers.{l}.mlp.up_proj"] = (INNER, WIDTH)
        shapes[f"layers.{l}.mlp.down_proj"] = (WIDTH, INNER)
    for name, shape in shapes.items():
        p[f"{name}.weight"], p[f"{name}.bias"] = parameter(*shape), parameter(shape[0])

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    rows, steps = MASKED.shape
    masked = MASKED == ITEMS + 1
    known = p["item_embeddings.weight"][MASKED.masked_fill(masked, 0)]
    x = torch.where(masked[..., None], p["mask_embedding.weight"], known)
    x = x + p["position_embeddings.weight"][:steps]
    visible = torch.arange(steps)[None] < torch.tensor(LENGTHS)[:, None]

    def split(x):
        return x.view(rows, steps, HEADS, WIDTH // HEADS).transpose(1, 2)

    for l in range(LAYERS):
        name = f"layers.{l}"
        h = norm(x, f"{name}.attention_norm")
        q, k, v = (split(linear(h, f"{name}.attention.{part}_proj")) for part in "qkv")
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None])
        seen = seen.transpose(1, 2).reshape(rows, steps, WIDTH)
        x = x + linear(seen, f"{name}.attention.o_proj")
        inner = F.gelu(linear(norm(x, f"{name}.mlp_norm"), f"{name}.mlp.up_proj"))
        x = x + linear(inner, f"{name}.mlp.down_proj")
    x = norm(F.gelu(linear(norm(x, "final_norm"), "output")), "output_norm")
    write(golden, "bert4rec", p, x)


def write(golden, model, parameters, users):
    upstream = torch.randn(users.shape)
    for row, length in enumerate(LENGTHS):
        upstream[row, length:] = 0
    (users * upstream).sum().backward()
    golden[f"{model}.upstream"] = upstream
    # What stands behind the end of a history means nothing.
    golden[f"{model}.users"] = (users * (upstream != 0)).detach()
    for name, value in parameters.items():
        golden[f"{model}.parameter.{name}"] = value.detach()
        golden[f"{model}.gradient.{name}"] = value.grad


def main():
    torch.manual_seed(31)
    golden = {}
    gru4rec(golden)
    bert4rec(golden)
    path = Path(__file__).parent / "golden" / "baselines.safetensors"
    save_file({k: v.contiguous().clone() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors")


if __name__ == "__main__":
    main()
