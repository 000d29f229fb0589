"""How fast a model is at several depths, beside the full one: inference, and a training step.

The full model and a shorter one are timed in turns, batch by batch (`depthprune.profiling.latency`); the ratio is the
median of theirs, with a 95 % interval from their order alone. Which layers go does not matter for speed; the top ones
go here. A training step is forward, backward and AdamW. bfloat16 is autocast, with weights in float32.

    python benchmarks/depth_speed.py MODEL --counts 2 4 6 --batch-sizes 32 256 --output speed.json

docs/results/figures.yaml names the files of speeds that the figures of the docs are drawn from.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch

import depthprune
from depthprune.experiments.environment import environment
from depthprune.loading import load_classifier
from depthprune.profiling.latency import in_turns
from depthprune.sources import locate


class Timed:
    """A model as two functions of a batch's number, each of which ends when the device has done the work."""

    def __init__(self, model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor, precision: str):
        self._model, self._batch, self._labels = model, batch, labels
        fused = model.device.type == "cuda"
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)
        self._autocast = {"device_type": model.device.type, "dtype": torch.bfloat16, "enabled": precision == "bfloat16"}

    def answer(self, _: int) -> None:
        """Run the model without gradients."""
        self._model.eval()
        with torch.inference_mode(), torch.autocast(**self._autocast):
            self._model(**self._batch)
        self._wait()

    def train(self, _: int) -> None:
        """Take one step of training."""
        self._model.train()
        with torch.autocast(**self._autocast):
            loss = self._model(**self._batch, labels=self._labels).loss
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._wait()

    def _wait(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--counts", nargs="+", type=int, default=[2, 4, 6])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    about = environment(given.device, torch.get_num_threads())
    device = torch.cuda.get_device_name() if given.device == "cuda" else about["processor"] or "cpu"
    print(f"{device}, torch {torch.__version__}, {about['threads']} threads, length {given.length}", flush=True)
    full, _ = load_classifier(locate(given.model), 2, device=given.device)
    depth, found = full.config.num_hidden_layers, []
    for count in given.counts:
        plan = depthprune.strategies.choose("top", depth=depth, count=count)
        short = depthprune.drop_layers(copy.deepcopy(full), plan)
        for size in given.batch_sizes:
            ids = torch.randint(10, full.config.vocab_size, (size, given.length), device=given.device)
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            labels = torch.arange(size, device=given.device) % 2
            for precision in given.precisions:
                pair = [Timed(copy.deepcopy(model), batch, labels, precision) for model in (full, short)]
                for what in ("answer", "train"):
                    steps = [getattr(model, what) for model in pair]
                    for step in steps:
                        for _ in range(3):
                            step(0)  # kernels and allocator warm up
                    times, speedup = in_turns(*steps, 1)
                    first, second = (1000 * sorted(side[0])[len(side[0]) // 2] for side in times)
                    row = {"count": count, "depth": depth, "batch": size, "precision": precision, "what": what}
                    row |= {"full_ms": first, "cut_ms": second, "speedup": speedup.value}
                    row |= {"low": speedup.low, "high": speedup.high, "batches": speedup.batches}
                    found.append(row)
                    print(
                        f"{count} of {depth} dropped, batch {size}, {precision}, {what}: {first:.2f} ms to "
                        f"{second:.2f} ms, {speedup.value:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})",
                        flush=True,
                    )
    if given.output is not None:
        head = {"model": Path(given.model).name, "device": device, "torch": torch.__version__, "length": given.length}
        head |= {"threads": about["threads"]}
        given.output.write_text(json.dumps(head | {"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
