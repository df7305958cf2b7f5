"""PyTorch's side of `cargo xtask bench train`: transformers' Llama with peft's LoRA, a SASRec in
plain PyTorch, and a plain distillation loop; one optimizer step for each line on stdin.

Usage: torch_worker.py eager|compile student|teacher|sasrec
       torch_worker.py eager distill      each line: the lengths of the batch's histories
       torch_worker.py count student      prints the operations of a step's matrix products
Answers with wall milliseconds, CPU milliseconds, peak memory in KiB and the loss."""
import os
import resource
import sys
import time

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy, scaled_dot_product_attention

mode, case = sys.argv[1:3]
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(1)
HISTORY, PROMPT, HIDDEN, BLOCKS = 50, 40, 576, 4


def language_model(layers, lora):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=1, hidden_size=HIDDEN, intermediate_size=1536, num_hidden_layers=layers,
        num_attention_heads=9, num_key_value_heads=3, rms_norm_eps=1e-5, rope_theta=1e5,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)
    body = LlamaModel(config)
    if not lora:
        return body
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(body, LoraConfig(
        r=16, lora_alpha=16, lora_dropout=0.0, target_modules=projections))


class Recommender(nn.Module):
    def __init__(self, layers, items, lora=True):
        super().__init__()
        self.body = language_model(layers, lora)
        self.register_buffer("items", torch.randn(items + 1, 128) * 0.1)
        self.register_buffer("prompt", torch.randn(1, PROMPT, HIDDEN) * 0.1)
        self.item_projection = nn.Linear(128, HIDDEN)
        self.user_projection = nn.Linear(HIDDEN, 128, bias=False)

    def scores(self, users):
        return users @ self.items[1:].T

    def forward(self, histories):
        x = self.item_projection(self.items[histories])
        x = self.body(inputs_embeds=x, use_cache=False).last_hidden_state
        return self.scores(self.user_projection(x))

    def states(self, histories):
        """The states after every layer at the items, the last after the final norm."""
        x = self.item_projection(self.items[histories])
        x = torch.cat([self.prompt.expand(len(x), -1, -1), x], 1)
        states = self.body(
            inputs_embeds=x, use_cache=False, output_hidden_states=True).hidden_states
        return [state[:, PROMPT:] for state in states[1:]]


class Distillation(nn.Module):
    """Cross-entropy, 1 - cos, squared distance and multiple supervision at every position."""

    def __init__(self, items):
        super().__init__()
        self.teacher = Recommender(24, items, lora=False).requires_grad_(False)
        self.student = Recommender(4, items)
        self.heads = nn.ModuleList(
            nn.Linear(HIDDEN, 128, bias=False) for _ in range(BLOCKS - 1))

    def forward(self, histories, targets, real):
        def at_ends(states):
            size = len(states) // BLOCKS
            return [states[(block + 1) * size - 1][real] for block in range(BLOCKS)]

        self.teacher.eval()
        with torch.no_grad():
            taught = at_ends(self.teacher.states(histories))
        states = at_ends(self.student.states(histories))
        targets = targets[real]
        supervised = lambda head, state: cross_entropy(
            self.student.scores(head(state)), targets)
        loss = supervised(self.student.user_projection, states[-1])
        pairs = list(zip(taught, states))
        cos = sum((1 - cosine_similarity(t, s, dim=-1)).mean() for t, s in pairs)
        norm = sum((t - s).square().sum(-1).mean() for t, s in pairs)
        inner = sum(supervised(head, state) for head, state in zip(self.heads, states))
        return loss + cos / BLOCKS + 0.1 * norm / BLOCKS + 0.1 * inner / (BLOCKS - 1)


class SasRecLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        split = lambda y: y.view(batch, length, self.heads, -1).transpose(1, 2)
        y = self.attention_norm(x)
        y = scaled_dot_product_attention(
            split(self.q(y)), split(self.k(y)), split(self.v(y)), is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.relu(self.up(self.mlp_norm(x))))


class SasRec(nn.Module):
    def __init__(self, items, width=128):
        super().__init__()
        self.items = nn.Embedding(items + 1, width)
        self.positions = nn.Embedding(HISTORY, width)
        self.layers = nn.ModuleList(SasRecLayer(width, 2) for _ in range(2))
        self.norm = nn.LayerNorm(width)

    def forward(self, histories):
        x = self.items(histories) + self.positions(torch.arange(histories.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.items.weight[1:].T


def build():
    if case == "sasrec":
        return SasRec(3400), 128, 3400
    if case == "distill":
        return Distillation(12_000), 16, 12_000
    return Recommender({"student": 4, "teacher": 24}[case], 12_000), 16, 12_000


def batch_of(lengths):
    """Histories and targets, padded on the right, and which positions are real."""
    longest = max(lengths)
    sequences = torch.tensor([[1 + (row * 97 + t * 13) % num_items for t in range(longest + 1)]
                              for row in range(len(lengths))])
    real = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return sequences[:, :-1] * real, sequences[:, 1:] - 1, real


model, batch, num_items = build()
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4)
forward = torch.compile(model) if mode == "compile" else model
histories, targets, _ = batch_of([HISTORY] * batch)


def step(line):
    if case == "distill":
        loss = forward(*batch_of([int(length) for length in line.split()]))
    else:
        loss = cross_entropy(forward(histories).flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    return loss.item()


if mode == "count":
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step("")
    products = (torch.ops.aten.mm, torch.ops.aten.addmm)
    counts = counter.get_flop_counts()["Global"]
    print(sum(count for operation, count in counts.items() if operation in products))
    sys.exit()

for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step(line)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(wall * 1e3, cpu * 1e3, peak, loss, flush=True)
