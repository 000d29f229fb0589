"""What training-free repair is worth, without any training: cut alone against each method.

Of a sentence encoder, the Spearman correlation of the mean-pooled embeddings' cosine with STS-B's amounts (zero-shot);
of a causal language model, the perplexity on text that the full model wrote, other text than it is calibrated on:

    python benchmarks/repair.py --model MINILM --stsb GLUE/stsb --layers 1,3,4 --layers 1,2
    python benchmarks/repair.py --model stories260K --layers 2 --layers 1,3

GLUE is a folder in the layout of `nyu-mll/glue`. Calibration is on rows of the training split, or on written texts.
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from scipy.stats import spearmanr
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from depthprune.errors import UserError
from depthprune.healing.base import Cut, Schedule, TrainingData
from depthprune.healing.recipe import parse_recipe, resolve
from depthprune.plan import LayerPlan, parse_layers
from depthprune.specs import HealSpec

RECIPES = (
    "drop",
    "compensate",
    "compensate(per_dimension=true)",
    "linear-patch",
    "linear-patch(ridge=0.1)",
    "linear-patch(examples=4096)",
    "merge",
    "merge(weight=0.5)",
)
TOKENS = 256  # of a written text
WRITTEN, SCORED = 192, 64  # texts to calibrate on, and to score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--stsb", type=Path, help="folder of STS-B; the model is a language model if left out")
    parser.add_argument("--layers", action="append", required=True, help="to drop, as 1,3-4; several times")
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    subject: Any = (
        Encoder(given.model, tokenizer, given.stsb) if given.stsb else Decoder(given.model, tokenizer, given.seed)
    )
    depth = subject.model.config.num_hidden_layers
    print(f"| dropped | repair | {subject.unit} | seconds |\n|---|---|---|---|")
    print(f"| – | full model | {subject.score(subject.model):.2f} | |", flush=True)
    for layers in given.layers:
        plan = LayerPlan(depth, parse_layers(layers))
        for recipe in RECIPES:
            model, started = copy.deepcopy(subject.model), time.perf_counter()
            (step,) = resolve(HealSpec(num_epochs=0, steps=parse_recipe(recipe)))
            try:
                healed = step.healer.function(
                    model, subject.data, step.options, schedule=Schedule(), seed=given.seed, cut=Cut(plan), teacher=None
                )
            except UserError as error:
                print(f"| {layers} | {recipe} | {error} | |")
                continue
            took = time.perf_counter() - started
            name = "cut alone" if recipe == "drop" else recipe
            print(f"| {layers} | {name} | {subject.score(healed.model):.2f} | {took:.1f} |", flush=True)
            for note in healed.notes:
                print(f"    {note}", flush=True)


class Encoder:
    """A sentence encoder, scored on the evaluation split of STS-B."""

    unit = "Spearman ×100"

    def __init__(self, path: str, tokenizer: Any, folder: Path):
        self.model, self._tokenizer = AutoModel.from_pretrained(path).eval(), tokenizer
        data: Any = load_dataset(str(folder))
        sentences = sorted({*data["train"]["sentence1"], *data["train"]["sentence2"]})
        self.data, self._rows = TrainingData(self._encoded(sentences), tokenizer), data["validation"]

    def _encoded(self, texts: list[str]) -> Dataset:
        encoded = self._tokenizer(texts, truncation=True, max_length=128)
        return Dataset.from_dict({**encoded, "length": [len(ids) for ids in encoded["input_ids"]]})

    def score(self, model: Any) -> float:
        """Return the rank correlation of cosines and amounts."""
        texts = [*self._rows["sentence1"], *self._rows["sentence2"]]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        embedded = torch.empty(len(texts), model.config.hidden_size)
        with torch.no_grad():
            for start in range(0, len(texts), 64):
                part = order[start : start + 64]
                batch = self._tokenizer(
                    [texts[i] for i in part], padding=True, truncation=True, max_length=128, return_tensors="pt"
                )
                mask = batch["attention_mask"][..., None]
                embedded[part] = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        one, other = embedded.chunk(2)
        cosines = torch.nn.functional.cosine_similarity(one, other).tolist()
        found: Any = spearmanr(list(self._rows["label"]), cosines)
        return 100 * float(found.statistic)


class Decoder:
    """A causal language model, scored on what it wrote itself."""

    unit = "perplexity"

    def __init__(self, path: str, tokenizer: Any, seed: int):
        self.model: Any = AutoModelForCausalLM.from_pretrained(path).eval()
        torch.manual_seed(seed)
        start = torch.full((WRITTEN + SCORED, 1), self.model.config.bos_token_id)
        with torch.no_grad():
            ids = self.model.generate(
                start, do_sample=True, top_k=0, min_new_tokens=TOKENS, max_new_tokens=TOKENS, pad_token_id=0
            )
        rows = {"input_ids": ids[:WRITTEN].tolist(), "attention_mask": torch.ones_like(ids[:WRITTEN]).tolist()}
        self.data = TrainingData(Dataset.from_dict({**rows, "length": [TOKENS + 1] * WRITTEN}), tokenizer)
        self._scored = ids[WRITTEN:]

    def score(self, model: Any) -> float:
        """Return the perplexity."""
        with torch.no_grad():
            return float(model(input_ids=self._scored, labels=self._scored, use_cache=False).loss.exp())


if __name__ == "__main__":
    main()
