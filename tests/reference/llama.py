"""Golden numbers of a tiny random Llama, with and without LoRA, from transformers and peft.

Writes golden/llama.safetensors (weights, embeddings in, all hidden states out, gradients) and
golden/lora.safetensors (adapters, merged weight, states out, gradients).

Needs: torch transformers peft safetensors. Run: python llama.py
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaModel

GOLDEN = Path(__file__).parent / "golden"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

CONFIG = LlamaConfig(
    vocab_size=1,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    attn_implementation="eager",
)


def tiny_model() -> LlamaModel:
    """Weights far enough from zero that every term of the forward pass matters."""
    torch.manual_seed(1)
    model = LlamaModel(CONFIG).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                weight.copy_(0.25 * torch.randn_like(weight))
    return model


def states(model, x: torch.Tensor) -> dict[str, torch.Tensor]:
    out = model(inputs_embeds=x, output_hidden_states=True)
    # hidden_states[l] is the residual stream after layer l, the last one after the final norm.
    return {f"state.{layer}": out.hidden_states[layer] for layer in (1, 2, 3)}


def loss(states: dict[str, torch.Tensor], probe: torch.Tensor) -> torch.Tensor:
    """Touches an inner state and the last one."""
    return (states["state.3"] * probe).sum() + 0.1 * (states["state.1"] * probe).sum()


def body(model: LlamaModel) -> dict[str, torch.Tensor]:
    return {f"model.{name}": weight for name, weight in model.named_parameters() if "embed" not in name}


def plain(x: torch.Tensor, probe: torch.Tensor) -> None:
    model = tiny_model()
    out = states(model, x)
    loss(out, probe).backward()
    golden = {"x": x, "probe": probe, "x.grad": x.grad, **out}
    for name, weight in body(model).items():
        golden[name] = weight
        golden[f"{name}.grad"] = weight.grad
    save(golden, "llama.safetensors")


def lora(x: torch.Tensor, probe: torch.Tensor) -> None:
    config = LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=MODULES)
    model = get_peft_model(tiny_model(), config)
    torch.manual_seed(3)
    golden = {}
    adapters = {
        name.removeprefix("base_model.model.").replace(".default", ""): weight
        for name, weight in model.named_parameters()
        if "lora_" in name
    }
    with torch.no_grad():
        for weight in adapters.values():
            weight.copy_(0.2 * torch.randn_like(weight))
    out = states(model, x)
    loss(out, probe).backward()
    for name, weight in adapters.items():
        golden[f"model.{name}"] = weight
        golden[f"model.{name}.grad"] = weight.grad
    golden |= out
    merged = model.merge_and_unload()
    for name in ("model.layers.0.self_attn.k_proj.weight", "model.layers.2.mlp.down_proj.weight"):
        golden[f"merged.{name}"] = body(merged)[name]
    save(golden, "lora.safetensors")


def save(tensors: dict[str, torch.Tensor], name: str) -> None:
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, GOLDEN / name)


def main() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 7, CONFIG.hidden_size)
    probe = torch.randn(2, 7, CONFIG.hidden_size)
    plain(x.clone().requires_grad_(), probe)
    lora(x.clone(), probe)


if __name__ == "__main__":
    main()
