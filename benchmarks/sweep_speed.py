"""A grid of runs as one sweep, against the same cells as separate `depthprune run`s, each with an empty store.

Both are the user's commands, timed from start to end, one after the other. The sweep gains by what runs share: the full
model is trained once and not beside every cell, strategies that choose the same layers are one run, libraries are
imported once a worker; and by running as many at a time as there are cores.

    python benchmarks/sweep_speed.py MODEL --epochs 0.2
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from depthprune.experiments.sweeps.executors.local import THREAD_VARIABLES, cores

STRATEGIES = ("top", "bottom", "even-alternate", "odd-alternate")
COUNTS = (1, 2, 3)


def timed(*arguments: str, threads: int | None = None) -> float:
    """Run the command and return its seconds."""
    environment = dict(os.environ)
    if threads is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "depthprune", *arguments], capture_output=True, text=True,
                          check=False, env=environment)  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", default="docstrings")
    parser.add_argument("--dataset")
    parser.add_argument("--epochs", default="0.2")
    parser.add_argument("--max-length", default="64")
    given = parser.parse_args()
    common = ["--task", given.task, "--epochs", given.epochs, "--max-length", given.max_length]
    common += ["--dataset", given.dataset] if given.dataset else []
    cells = list(itertools.product(STRATEGIES, COUNTS))
    with tempfile.TemporaryDirectory() as folder:
        names = [option for name in STRATEGIES for option in ("--strategy", name)]
        numbers = [option for count in COUNTS for option in ("--count", str(count))]
        sweep = timed("sweep", "--model", given.model, *common, *names, *numbers, "--store", f"{folder}/sweep")
        runs = len(list(Path(folder, "sweep").glob("*/record.json")))
        print(f"one sweep of {len(cells)} cells: {sweep:.1f} s, {runs} runs", flush=True)
        singles = [
            timed("run", given.model, *common, "--strategy", name, "--count", str(count), "--store", f"{folder}/{i}")
            for i, (name, count) in enumerate(cells)
        ]
        print(f"{len(cells)} processes of run: {sum(singles):.1f} s ({min(singles):.1f} to {max(singles):.1f} s each)")
        print(f"the sweep is {sum(singles) / sweep:.2f} times as fast, on {cores()} cores")


if __name__ == "__main__":
    main()
