"""Golden numbers of the distillation objective: every term and its gradients.

Run with torch and safetensors installed: python losses.py
Writes golden/losses.safetensors. States and user vectors are random leaves; teacher and student
differ in width, so that projectors are covered. A teacher is frozen, or learns beside the student:
detached (no gradient of the student's terms reaches it) or joint.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HISTORIES = [[3, 1, 4], [2, 6]]
TARGETS = [[1, 4, 7], [6, 5]]
ITEMS, DIM, TEACHER_DIM, STUDENT, TEACHER, BLOCKS, LONGEST = 7, 3, 5, 4, 6, 2, 3
LAMBDAS = {"cos": 0.7, "norm": 0.3, "ms": 0.5, "kd": 0.9, "block_kl": 0.6, "teacher_ce": 1.0}
TEMPERATURE = 2.0
TOP = 3
EPSILON = 1e-5
# Positions, form of D_norm, best items of D_kd and D_bkl (0: all), what the teacher does.
CASES = {
    "all.squared": ("all", True, 0, "frozen"),
    "all.unsquared": ("all", False, 0, "frozen"),
    "last.squared": ("last", True, 0, "frozen"),
    "last.unsquared": ("last", False, 0, "frozen"),
    "all.squared.top": ("all", True, TOP, "frozen"),
    "last.squared.top": ("last", True, TOP, "frozen"),
    "all.squared.detached": ("all", True, 0, "detached"),
    "all.squared.joint": ("all", True, 0, "joint"),
    "last.unsquared.joint": ("last", False, 0, "joint"),
    "all.squared.top.joint": ("all", True, TOP, "joint"),
}


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
    shapes["teacher_norm"] = (TEACHER,)
    shapes["teacher_projection"] = (TEACHER_DIM, TEACHER)
    return {name: torch.randn(shape).requires_grad_() for name, shape in shapes.items()}


def divergence(student, teacher, top):
    """T^2 KL(teacher || student) of logits, over the teacher's best items only where `top` says so."""
    if top:
        best = teacher.topk(top).indices
        student, teacher = student.gather(1, best), teacher.gather(1, best)
    return TEMPERATURE**2 * F.kl_div(
        F.log_softmax(student / TEMPERATURE, dim=-1),
        F.log_softmax(teacher / TEMPERATURE, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def terms(x, where, squared, top, mode):
    """Each term as the mean over positions of a plain sum over blocks."""
    every = [(b, s, t) for b, row in enumerate(TARGETS) for s, t in enumerate(row)]
    last = [(b, len(row) - 1, row[-1]) for b, row in enumerate(TARGETS)]
    chosen = every if where == "all" else last
    told = {
        name: value if mode == "joint" else value.detach()
        for name, value in x.items()
        if name.startswith("teacher")
    }

    def rows(name, at, of=x):
        return torch.stack([of[name][b, s] for b, s, _ in at])

    def targets(at):
        return torch.tensor([t - 1 for _, _, t in at])

    def logits(users, of=x, items="items"):
        return users @ of[items][1:].T

    found = {"ce": F.cross_entropy(logits(rows("users", every)), targets(every))}
    cos, norm = 0, 0
    for block in range(BLOCKS):
        s = rows(f"student.{block}", chosen) @ x[f"projector.{block}"].T
        t = rows(f"teacher.{block}", chosen, told)
        cos = cos + (1 - F.cosine_similarity(t, s)).mean() / BLOCKS
        distance = torch.linalg.vector_norm(t - s, dim=-1)
        norm = norm + (distance**2 if squared else distance).mean() / BLOCKS
    head = rows("student.0", chosen) @ x["head.0"].T
    inner = rows("teacher.0", chosen, told)
    inner = inner * torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + EPSILON)
    inner = (inner * told["teacher_norm"]) @ told["teacher_projection"].T
    taught = rows("teacher_users", chosen, told)
    found["cos"], found["norm"] = cos, norm
    found["ms"] = F.cross_entropy(logits(head), targets(chosen))
    users = logits(rows("users", chosen))
    found["kd"] = divergence(users, logits(taught, told, "teacher_items"), top)
    of_block = logits(inner, told, "teacher_items")
    found["block_kl"] = divergence(logits(head), of_block, top)
    if mode != "frozen":
        own = logits(rows("teacher_users", every), x, "teacher_items")
        found["teacher_ce"] = F.cross_entropy(own, targets(every))
    return found


def main():
    golden = {name: value.detach() for name, value in leaves().items()}
    for case, setting in CASES.items():
        x = leaves()
        found = terms(x, *setting)
        total = sum(LAMBDAS.get(name, 1.0) * value for name, value in found.items())
        total.backward()
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
