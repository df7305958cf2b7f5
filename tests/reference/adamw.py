"""Golden numbers of AdamW with clipping: five steps of torch.optim.AdamW.

Run with torch and safetensors installed: python adamw.py
Writes golden/adamw.safetensors.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

STEPS, CLIP, DECAY = 5, 1.0, 0.1
SHAPES = {
    "model.layer.weight": (3, 4),
    "model.layer.bias": (3,),
    "model.embeddings.weight": (5, 2),
    "objective.head.weight": (2, 2),
}
# Learning rate of each step; the head learns at a tenth of it.
RATES = [0.01, 0.02, 0.03, 0.02, 0.01]


def main():
    torch.manual_seed(22)
    values = {name: torch.randn(shape).requires_grad_() for name, shape in SHAPES.items()}
    golden = {f"start.{name}": value.detach().clone() for name, value in values.items()}
    groups = [
        {
            "params": [value],
            "weight_decay": DECAY if name in ("model.layer.weight", "objective.head.weight") else 0.0,
            "scale": 0.1 if name.startswith("objective.") else 1.0,
        }
        for name, value in values.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for step, rate in enumerate(RATES):
        for name, value in values.items():
            # Small at the third step, so that clipping is not always on.
            value.grad = torch.randn(value.shape) * (0.05 if step == 2 else 1.0)
            golden[f"gradient.{step}.{name}"] = value.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(values.values(), CLIP)
        golden[f"norm.{step}"] = norm
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
    for name, value in values.items():
        golden[f"end.{name}"] = value.detach()
        golden[f"first_moment.{name}"] = optimizer.state[value]["exp_avg"]
        golden[f"second_moment.{name}"] = optimizer.state[value]["exp_avg_sq"]
    path = Path(__file__).parent / "golden" / "adamw.safetensors"
    save_file({k: v.contiguous() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors")


if __name__ == "__main__":
    main()
