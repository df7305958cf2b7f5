"""PyTorch's side of `cargo xtask bench train`: transformers' Llama with peft's LoRA, a SASRec in
plain PyTorch; one optimizer step for each line on stdin.

Usage: torch_worker.py eager|compile student|teacher|sasrec
Answers with wall milliseconds, CPU milliseconds and peak memory in KiB."""
import os
import resource
import sys
import time

import torch
from torch import nn

mode, case = sys.argv[1:3]
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(1)
HISTORY = 50


def language_model(layers):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=1, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers,
        num_attention_heads=9, num_key_value_heads=3, rms_norm_eps=1e-5, rope_theta=1e5,
        bos_token_id=None, eos_token_id=None, pad_token_id=None)
    body = LlamaModel(config)
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(body, LoraConfig(
        r=16, lora_alpha=16, lora_dropout=0.0, target_modules=projections))


class Recommender(nn.Module):
    def __init__(self, layers, items):
        super().__init__()
        self.body = language_model(layers)
        self.register_buffer("items", torch.randn(items + 1, 128) * 0.1)
        self.item_projection = nn.Linear(128, 576)
        self.user_projection = nn.Linear(576, 128, bias=False)

    def forward(self, histories):
        x = self.item_projection(self.items[histories])
        x = self.body(inputs_embeds=x, use_cache=False).last_hidden_state
        return self.user_projection(x) @ self.items[1:].T


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
        y = nn.functional.scaled_dot_product_attention(
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
    return Recommender({"student": 4, "teacher": 24}[case], 12_000), 16, 12_000


model, batch, num_items = build()
model.train()
sequences = torch.tensor(
    [[1 + (row * 97 + t * 13) % num_items for t in range(HISTORY + 1)] for row in range(batch)])
histories, targets = sequences[:, :-1], sequences[:, 1:] - 1
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4)
forward = torch.compile(model) if mode == "compile" else model

for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    logits = forward(histories)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(wall * 1e3, cpu * 1e3, peak, flush=True)
