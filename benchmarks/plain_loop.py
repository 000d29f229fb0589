"""A hand-written fine-tuning loop that uses nothing of depthprune: the reference for scores and for speed.

It does what a short script does: tokenise, pad, AdamW, linear decay, float32. `--pad max` pads every row to
`--max-length` (the baseline of `fine_tuning_speed.py`); `--pad batch` pads to the longest row of the batch
(the same scores in less time). One JSON line goes to standard output.

    python benchmarks/plain_loop.py MODEL --dataset DIR --task mrpc --learning-rate 1e-4 --seed 0
"""

import argparse
import json
import time

import torch
from datasets import load_dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup


def encode(tokenizer, rows, arguments):
    padding = "max_length" if arguments.pad == "max" else False
    encoded = tokenizer(
        rows["sentence1"],
        rows["sentence2"],
        truncation=True,
        max_length=arguments.max_length,
        padding=padding,
    )
    return [{**{key: encoded[key][i] for key in encoded}, "labels": label} for i, label in enumerate(rows["label"])]


def batches(rows, order, size, tokenizer):
    for start in range(0, len(order), size):
        chosen = [dict(rows[i]) for i in order[start : start + size]]
        labels = torch.tensor([row.pop("labels") for row in chosen])
        yield tokenizer.pad(chosen, return_tensors="pt"), labels


def train(model, rows, tokenizer, arguments):
    steps = (len(rows) + arguments.batch_size - 1) // arguments.batch_size * arguments.epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    generator = torch.Generator().manual_seed(arguments.seed)
    model.train()
    examples, started = 0, time.perf_counter()
    for _ in range(arguments.epochs):
        order = torch.randperm(len(rows), generator=generator).tolist()
        for inputs, labels in batches(rows, order, arguments.batch_size, tokenizer):
            labels = labels.float() if model.config.num_labels == 1 else labels
            model(**inputs, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            examples += len(labels)
    return examples / (time.perf_counter() - started)


@torch.no_grad()
def score(model, rows, tokenizer, arguments):
    model.eval()
    predicted, expected = [], []
    for inputs, labels in batches(rows, range(len(rows)), 32, tokenizer):
        logits = model(**inputs).logits
        predicted += (logits[:, 0] if model.config.num_labels == 1 else logits.argmax(-1)).tolist()
        expected += labels.tolist()
    if arguments.task == "stsb":
        return {"pearson": pearsonr(predicted, expected)[0], "spearman": spearmanr(predicted, expected)[0]}
    return {"accuracy": accuracy_score(expected, predicted), "f1": f1_score(expected, predicted)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--task", choices=["mrpc", "stsb"], default="mrpc")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pad", choices=["max", "batch"], default="max")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    labels = 1 if arguments.task == "stsb" else 2
    model = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=labels, dtype=torch.float32)
    data = load_dataset(arguments.dataset, arguments.task)
    # `[:]` turns the columns into plain lists, which the tokenizer wants.
    training = encode(tokenizer, data["train"][:], arguments)
    evaluation = encode(tokenizer, data["validation"][:], arguments)
    speed = train(model, training, tokenizer, arguments)
    metrics = score(model, evaluation, tokenizer, arguments)
    settings = {k: getattr(arguments, k) for k in ("task", "learning_rate", "epochs", "pad", "seed")}
    print(
        json.dumps(
            {
                **settings,
                "examples_per_second": round(speed, 2),
                **{k: round(float(v), 4) for k, v in metrics.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
