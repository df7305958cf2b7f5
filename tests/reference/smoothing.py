"""Golden numbers of label smoothing: cross-entropy and its gradients where some items are no
candidates.

Run with torch and safetensors installed: python smoothing.py
Writes golden/smoothing.safetensors. PyTorch has no smoothing over some of the classes, so each row
is given the logits of its candidates only. `seen` has a 1 for each item that is none.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ROWS, ITEMS, DIM, SMOOTHING = 6, 11, 4, 0.3


def main():
    torch.manual_seed(5)
    users = torch.randn(ROWS, DIM, requires_grad=True)
    items = torch.randn(ITEMS + 1, DIM, requires_grad=True)
    targets = torch.randint(1, ITEMS + 1, (ROWS,))
    seen = torch.rand(ROWS, ITEMS) < 0.3
    seen[0] = False
    seen[torch.arange(ROWS), targets - 1] = False
    logits = users @ items[1:].T
    losses = []
    for row in range(ROWS):
        candidates = (~seen[row]).nonzero()[:, 0]
        target = (candidates == targets[row] - 1).nonzero()[0]
        losses.append(F.cross_entropy(
            logits[row, candidates][None], target, label_smoothing=SMOOTHING))
    loss = torch.stack(losses).mean()
    loss.backward()
    tensors = {
        "users": users.detach(), "items": items.detach(), "targets": targets.to(torch.uint32),
        "seen": seen.to(torch.uint8), "smoothing": torch.tensor(SMOOTHING),
        "loss": loss.detach(), "users.gradient": users.grad, "items.gradient": items.grad,
    }
    save_file(tensors, Path(__file__).parent / "golden" / "smoothing.safetensors")


main()
