"""Golden numbers of the distillation objective: every term and its gradients.

Run with torch and safetensors installed: python losses.py
Writes golden/losses.safetensors. States and user vectors are random leaves; teacher and student
differ in width, so that projectors are covered.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HISTORIES = [[3, 1, 4], [2, 6]]
TARGETS = [[1, 4, 7], [6, 5]]
ITEMS, DIM, TEACHER_DIM, STUDENT, TEACHER, BLOCKS, LONGEST = 7, 3, 5, 4, 6, 2, 3
LAMBDAS = {"cos": 0.7, "norm": 0.3, "ms": 0.5, "kd": 0.9}
TEMPERATURE = 2.0


def leaves():
    torch.manual_seed(21)
    batch = len(HISTORIES)
    shapes = {
        "users": (batch, LONGEST, DIM),
        "items": (ITEMS + 1, DIM),
        "teacher_users": (batch, LONGEST, TEACHER_DIM),
        "teacher_items": (ITEMS + 1, TEACHER_DIM),
        "head.0": (DIM, STUDENT),
    }
    for block in range(BLOCKS):
        shapes[f"student.{block}"] = (batch, LONGEST, STUDENT)
        shapes[f"teacher.{block}"] = (batch, LONGEST, TEACHER)
        shapes[f"projector.{block}"] = (TEACHER, STUDENT)
    return {name: torch.randn(shape).requires_grad_() for name, shape in shapes.items()}


def terms(x, where, squared):
    """Each term as the mean over positions of a plain sum over blocks."""
    every = [(b, s, t) for b, row in enumerate(TARGETS) for s, t in enumerate(row)]
    last = [(b, len(row) - 1, row[-1]) for b, row in enumerate(TARGETS)]
    chosen = every if where == "all" else last

    def rows(name, at):
        return torch.stack([x[name][b, s] for b, s, _ in at])

    def targets(at):
        return torch.tensor([t - 1 for _, _, t in at])

    def logits(users):
        return users @ x["items"][1:].T

    ce = F.cross_entropy(logits(rows("users", every)), targets(every))
    cos, norm = 0, 0
    for block in range(BLOCKS):
        s = rows(f"student.{block}", chosen) @ x[f"projector.{block}"].T
        t = rows(f"teacher.{block}", chosen).detach()
        cos = cos + (1 - F.cosine_similarity(t, s)).mean() / BLOCKS
        distance = torch.linalg.vector_norm(t - s, dim=-1)
        norm = norm + (distance**2 if squared else distance).mean() / BLOCKS
    ms = F.cross_entropy(
        logits(rows("student.0", chosen) @ x["head.0"].T), targets(chosen)
    )
    taught = rows("teacher_users", chosen) @ x["teacher_items"][1:].T
    kd = TEMPERATURE**2 * F.kl_div(
        F.log_softmax(logits(rows("users", chosen)) / TEMPERATURE, dim=-1),
        F.log_softmax(taught.detach() / TEMPERATURE, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return {"ce": ce, "cos": cos, "norm": norm, "ms": ms, "kd": kd}


def main():
    golden = {name: value.detach() for name, value in leaves().items()}
    for where in ("all", "last"):
        for norm in ("squared", "unsquared"):
            x = leaves()
            found = terms(x, where, norm == "squared")
            total = found["ce"] + sum(w * found[name] for name, w in LAMBDAS.items())
            total.backward()
            case = f"{where}.{norm}"
            for name, value in found.items():
                golden[f"{case}.{name}"] = value.detach()
            golden[f"{case}.total"] = total.detach()
            for name, value in x.items():
                if value.grad is not None:
                    golden[f"{case}.gradient.{name}"] = value.grad
    path = Path(__file__).parent / "golden" / "losses.safetensors"
    save_file({k: v.contiguous() for k, v in golden.items()}, path)
    print(f"{path}: {len(golden)} tensors")


if __name__ == "__main__":
    main()
