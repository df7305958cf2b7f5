"""Golden numbers of the cross-entropy over drawn items and its gradients.

Run with torch and safetensors installed: python sampled_softmax.py
Writes golden/sampled_softmax.safetensors. The sum over the drawn items is written with its
repetitions, one term a draw, so that merging equal draws into one is covered.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

ROWS, DIM, ITEMS = 5, 3, 9
TARGETS = [1, 4, 9, 4, 2]
COUNTS = [40, 1, 7, 3, 1, 20, 2, 2, 11]
EXPONENT = 0.5
# Some are targets (accidental hits), some were drawn more than once, one of them thrice.
DRAWS = [6, 1, 1, 4, 9, 3, 1, 6]


def main():
    torch.manual_seed(31)
    users = torch.randn(ROWS, DIM).requires_grad_()
    items = torch.randn(ITEMS + 1, DIM).requires_grad_()
    weights = torch.tensor([float(c) for c in COUNTS], dtype=torch.float64) ** EXPONENT
    probabilities = weights / weights.sum()
    expected = {i: len(DRAWS) * probabilities[i - 1].item() for i in set(DRAWS)}
    losses = []
    for row, target in enumerate(TARGETS):
        own = users[row] @ items[target]
        terms = [own]
        for item in DRAWS:
            if item != target:
                terms.append(users[row] @ items[item] - torch.log(torch.tensor(expected[item])))
        losses.append(torch.logsumexp(torch.stack(terms), 0) - own)
    loss = torch.stack(losses).mean()
    loss.backward()
    drawn = sorted(set(DRAWS))
    corrections = [torch.log(torch.tensor(DRAWS.count(i) / expected[i])) for i in drawn]
    golden = {
        "users": users.detach(),
        "items": items.detach(),
        "targets": torch.tensor(TARGETS),
        "drawn": torch.tensor(drawn),
        "corrections": torch.stack(corrections).float(),
        "loss": loss.detach(),
        "gradient.users": users.grad,
        "gradient.items": items.grad,
    }
    path = Path(__file__).parent / "golden" / "sampled_softmax.safetensors"
    save_file({k: v.contiguous() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors")


if __name__ == "__main__":
    main()
