"""What one pass for all similarity scores costs, against a plain forward and against keeping all hidden states.

The same batches go through the model in three ways, in turns: plainly; with the running sums of `depthprune score`; and
with all hidden states kept and compared afterwards, which is how scores are mostly taken. Peak memory is that of the
process, measured in children of their own.

    python benchmarks/scoring_speed.py MODEL --data TEXT --samples 256 --rounds 5
    python benchmarks/scoring_speed.py MODEL --data TEXT --memory 100 1000 10000
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from depthprune.experiments.choosing.engine import Engine
from depthprune.experiments.choosing.score import prepare
from depthprune.scores.batches import sentence_token
from depthprune.scores.capture import similarity_pass
from depthprune.sources import locate
from depthprune.tasks.data.calibration import CalibrationOptions


def plain(model, stack, batches, token):
    """Run the model and throw the output away."""
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def running_sums(model, stack, batches, token):
    """Take all similarity scores in one pass."""
    return similarity_pass(model, stack, batches, token=token)


def kept_states(model, stack, batches, token):
    """Keep every hidden state of every batch, then compare: block influence and the angles of all windows."""
    kept = []
    with torch.inference_mode():
        for batch in batches:
            kept.append((batch["attention_mask"].bool(), model(**batch, output_hidden_states=True).hidden_states))
        influence, tokens = torch.zeros(stack.depth), 0
        for mask, states in kept:
            tokens += int(mask.sum())
            for i in range(stack.depth):
                cosine = torch.nn.functional.cosine_similarity(states[i], states[i + 1], dim=-1)
                influence[i] += cosine[mask].sum()
        angles = {}
        for n in range(1, stack.depth + 1):
            for start in range(stack.depth - n + 1):
                total, count = 0.0, 0
                for _, states in kept:
                    cosine = torch.nn.functional.cosine_similarity(states[start][:, 0], states[start + n][:, 0], dim=-1)
                    total += float((cosine.clamp(-1, 1).arccos() / torch.pi).sum())
                    count += len(cosine)
                angles[n, start] = total / count
    return influence / tokens, angles


WAYS = {"plain forward": plain, "running sums": running_sums, "states kept": kept_states}


def load(model: str, data: str, samples: int, batch_size: int):
    prepared = prepare(
        locate(model), CalibrationOptions(data, samples=samples), Engine(batch_size=batch_size, device="cpu"), None
    )
    return prepared, sentence_token(prepared.model, prepared.tokenizer, prepared.stack.name)


def time_all(arguments: argparse.Namespace) -> None:
    prepared, token = load(arguments.model, arguments.data, arguments.samples, arguments.batch_size)
    batches = list(prepared.batches(predict=False).inputs)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for way in WAYS.values():
        way(prepared.model, prepared.stack, batches[:1], token)
    for _ in range(arguments.rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(prepared.model, prepared.stack, batches, token)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["plain forward"])
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    print(f"{arguments.samples} samples, {tokens} tokens, {len(batches)} batches, {torch.get_num_threads()} threads")
    print("| way | seconds (median, min–max) | against the plain forward |\n|---|---|---|")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} ({min(values):.2f}–{max(values):.2f}) | {middle / base:.3f}× |")


def measure_memory(arguments: argparse.Namespace) -> None:
    print("| samples | running sums, peak MB | states kept, peak MB |\n|---|---|---|")
    for samples in arguments.memory:
        peaks = []
        for way in ("running sums", "states kept"):
            command = [sys.executable, __file__, arguments.model, "--data", arguments.data, "--samples", str(samples)]
            done = subprocess.run([*command, "--one", way], capture_output=True, text=True, check=False)
            peaks.append(done.stdout.split()[-1] if done.returncode == 0 else "killed")
        print(f"| {samples} | {peaks[0]} | {peaks[1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="+", help="measure memory with so many samples")
    parser.add_argument("--one", choices=list(WAYS), help="run one way once, and print the peak memory in MB")
    arguments = parser.parse_args()
    if arguments.one:
        prepared, token = load(arguments.model, arguments.data, arguments.samples, arguments.batch_size)
        WAYS[arguments.one](prepared.model, prepared.stack, prepared.batches(predict=False).inputs, token)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    elif arguments.memory:
        measure_memory(arguments)
    else:
        time_all(arguments)


if __name__ == "__main__":
    main()
