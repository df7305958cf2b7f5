"""Golden numbers of Adam on single rows: five steps of torch.optim.SparseAdam.

Run with torch and safetensors installed: python sparse_adam.py
Writes golden/sparse_adam.safetensors.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

ROWS, WIDTH = 6, 3
# Rows of the gradient in each step; row 5 never has one.
STEPS = [[0, 2], [2, 3, 4], [0], [1, 2], [4]]
RATES = [0.01, 0.02, 0.03, 0.02, 0.01]


def main():
    torch.manual_seed(23)
    table = torch.randn(ROWS, WIDTH).requires_grad_()
    golden = {"start": table.detach().clone()}
    optimizer = torch.optim.SparseAdam([table], betas=(0.9, 0.999), eps=1e-8)
    for step, (rows, rate) in enumerate(zip(STEPS, RATES)):
        values = torch.randn(len(rows), WIDTH)
        golden[f"rows.{step}"] = torch.tensor(rows)
        golden[f"values.{step}"] = values
        table.grad = torch.sparse_coo_tensor([rows], values, (ROWS, WIDTH))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    golden["end"] = table.detach()
    golden["first_moment"] = optimizer.state[table]["exp_avg"]
    golden["second_moment"] = optimizer.state[table]["exp_avg_sq"]
    path = Path(__file__).parent / "golden" / "sparse_adam.safetensors"
    save_file({k: v.contiguous() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors")


if __name__ == "__main__":
    main()
