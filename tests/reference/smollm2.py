"""Negative log-likelihood of fixed sentences under SmolLM2, from transformers' own GGUF reader.

Writes golden/smollm2.json: token ids and nll per predicted token. Reading the rotary positions of
the GGUF the wrong way still "works", only worse, so this is the number that catches it.

Needs: torch transformers gguf. Run: python smollm2.py PATH/TO/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and then it runs back into the forest.",
    "In 1994, three films won most of the prizes: a drama, a comedy and a short cartoon.",
]


def main() -> None:
    path = Path(sys.argv[1])
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    rows = []
    for sentence in SENTENCES:
        ids = tokenizer(sentence, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(ids).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).item()
        rows.append({"text": sentence, "tokens": ids[0].tolist(), "nll_per_token": nll})
        print(sentence, tokenizer.convert_ids_to_tokens(ids[0]), nll)
    (Path(__file__).parent / "golden" / "smollm2.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
