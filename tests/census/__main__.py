"""Run the census, from the root of the repository.

python -m tests.census --jobs 2                       # what is not done yet
python -m tests.census --types bert,t5                # some types, again
python -m tests.census --again WRONG,crash            # again what came out so
python -m tests.census --report docs/architectures.md # write the page, and depthprune/surgery/census.json
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers.utils import logging

from depthprune.surgery import census

from .report import covered, outcomes, page, summary
from .runner import Options, read_results, run_types
from .tiny import config_types


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.census", description="Try the surgery on every architecture."
    )
    parser.add_argument("--types", help="model types, with commas; done again even where they are done")
    parser.add_argument("--again", help="outcomes, with commas: do the types again that have one of them")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(".census/results.jsonl"))
    parser.add_argument("--report", type=Path, help="write a page of the results here, and run nothing")
    parser.add_argument("--note", default="", help="what the page says of how it was made")
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="bound on the time of a type")
    parser.add_argument("--gib", type=float, default=Options.gib, help="bound on its address space")
    parser.add_argument("--sets", type=int, default=Options.sets, help="larger sets of layers a stack")
    parser.add_argument("--singles", type=int, help="single layers a stack (default: all)")
    parser.add_argument("--reloads", type=int, help="plans a stack that are saved and loaded (default: all)")
    parser.add_argument("--stream", action="store_true", help="cut one plan a stack as bytes too")
    given = parser.parse_args()
    done = read_results(given.results)
    if given.report:
        known = {name: done[name] for name in config_types() if name in done}
        given.report.write_text(page(known, config_types(), given.note), encoding="utf-8")
        (Path(census.__file__).parent / "census.json").write_text(covered(known), encoding="utf-8")
        return 0
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if given.types:
        chosen = given.types.split(",")
    elif given.again:
        chosen = [t for t, record in sorted(done.items()) if outcomes(record) & set(given.again.split(","))]
    else:
        chosen = [t for t in config_types() if t not in done]
    options = Options(given.seconds, given.gib, given.sets, given.singles, given.stream, given.reloads)
    run_types(chosen, given.results, options, jobs=given.jobs, say=_say)
    return 0


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(f"{summary(record)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
