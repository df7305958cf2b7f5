"""Loads the body of a checkpoint directory with transformers and compares hidden states.

The directory must hold expected.safetensors beside the checkpoint's own files: `embeddings`
[B, T, H] and `states` [B, T, H], the states after the final norm as the product computed them
(`cargo test -p slmrec-tests --test pretrained` writes one where SLMREC_TEST_CHECKPOINT says).

Needs: torch transformers safetensors. Run: python load_checkpoint.py DIR
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaModel

# f32 sums in another order over a few layers, on values of order 1 to 10.
TOLERANCE = 1e-4


def main() -> None:
    folder = Path(sys.argv[1])
    model, info = LlamaModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            sys.exit(f"{folder}: {kind}: {sorted(info[kind])}")
    expected = load_file(folder / "expected.safetensors")
    with torch.no_grad():
        states = model.eval()(inputs_embeds=expected["embeddings"]).last_hidden_state
    difference = (states - expected["states"]).abs().max().item()
    print(f"{folder}: largest difference {difference:.2e}, tolerance {TOLERANCE:.0e}")
    if not difference < TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
