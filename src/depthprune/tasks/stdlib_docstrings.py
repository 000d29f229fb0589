"""A text-classification task that needs no network and ships no data: the standard library's docstrings.

A row is the opening of one docstring (of a module, or a public class, function or method) and the part of the
Python Library Reference that describes its module. The text is read with `ast` from the library's own source,
never by importing it: imports run code, are slow, and fail where a platform lacks a module.

How the sections were chosen: out of eleven groups of neighbouring sections of the Reference, combinations of four to
seven were compared by how well a linear classifier on an unpruned encoder's embeddings separates them; pruned models
were not used. No other five did clearly better than these, and these have enough modules in Python 3.11, 3.12 and 3.13
(counted; none is known to go in 3.14). A label joins at most two sections, which it names. Left out are modules that
the Reference files far from their topic (`socket` and `ssl` beside `asyncio`, `typing` beside `unittest`), and what
3.12 and 3.13 removed.

What the score means: no module is in both splits, so that a model is asked about modules that it was not trained on. A
module's own name is left in the text: learning it by heart is no help in the other split, and masking it would also
blank ordinary words ("queue", "calendar", "trace"). A sentence that two modules share is dropped. The rows depend on
the Python version, since docstrings do: compare scores from one version only.
"""

import ast
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from depthprune.errors import UserError

TRAIN_PER_LABEL = 160
VALIDATION_PER_LABEL = 55
MIN_WORDS = 4
MAX_WORDS = 40

# Label: the modules of its sections. A name with "=" lists the source files that hold one documented module.
_SECTIONS = {
    "Data Types; Numeric and Mathematical Modules": (
        "datetime=datetime,_pydatetime zoneinfo calendar collections=collections,_collections_abc heapq "
        "bisect weakref types copy pprint reprlib enum graphlib "
        "numbers decimal=decimal,_pydecimal fractions random statistics"
    ),
    "File and Directory Access; Data Compression and Archiving": (
        "pathlib os.path=genericpath,ntpath,posixpath stat filecmp tempfile glob fnmatch linecache shutil "
        "fileinput gzip bz2 lzma zipfile tarfile"
    ),
    "Concurrent Execution; Networking and Interprocess Communication": (
        "threading multiprocessing concurrent subprocess sched queue asyncio selectors"
    ),
    "Internet Protocols and Support": (
        "webbrowser wsgiref urllib http ftplib poplib imaplib smtplib uuid socketserver xmlrpc ipaddress"
    ),
    "Development Tools; Debugging and Profiling": (
        "pydoc doctest unittest bdb pdb profile=profile,cProfile pstats timeit trace tracemalloc"
    ),
}
LABELS: tuple[str, ...] = tuple(_SECTIONS)


def rows(seed: int = 0, *, library: Path | None = None) -> dict[str, list[dict]]:
    """Build the task: balanced labels, and a split in which no module stands on both sides.

    Args:
        seed: picks the modules of the validation split and the rows of both.
        library: the folder of the standard library's source; this Python's own when left out.

    Returns:
        "train" and "validation", each a list of {"sentence", "label", "module"}; a label indexes `LABELS`.

    Raises:
        UserError: if the folder holds no source files, those of another Python version, or too few docstrings.
    """
    folder = Path(sysconfig.get_path("stdlib")) if library is None else library
    found = {
        label: {module: _openings(folder, files) for module, files in _modules(names)}
        for label, names in _SECTIONS.items()
    }
    # Counted over all labels: a sentence of two modules has no one label, and would also cross the split.
    times = Counter(text.casefold() for modules in found.values() for texts in modules.values() for text in texts)
    splits: dict[str, list[dict]] = {"train": [], "validation": []}
    for index, (label, modules) in enumerate(found.items()):
        own = {name: [text for text in texts if times[text.casefold()] == 1] for name, texts in modules.items()}
        # One generator for each label, so that a docstring more in one section leaves the others as they are.
        rng = random.Random(f"{seed}/{label}")
        validation = _validation_modules(own, rng)
        train = {name: texts for name, texts in own.items() if name not in validation}
        for split, pool, count in (
            ("train", train, TRAIN_PER_LABEL),
            ("validation", validation, VALIDATION_PER_LABEL),
        ):
            picked = _draw(pool, count, rng)
            if len(picked) < count:
                raise UserError(_too_few(folder, label, sum(map(len, own.values()))))
            splits[split] += [{"sentence": text, "label": index, "module": module} for module, text in picked]
    for split, members in splits.items():
        random.Random(f"{seed}/{split}").shuffle(members)
    return splits


def _too_few(folder: Path, label: str, found: int) -> str:
    needed = TRAIN_PER_LABEL + VALIDATION_PER_LABEL
    return (
        f"'{folder}' has {found} usable docstrings for '{label}', and the task needs about {needed}; "
        "use a Python whose standard library has its .py source (python.org, conda, uv and pyenv builds have)"
    )


def _modules(names: str) -> Iterator[tuple[str, list[str]]]:
    for name in names.split():
        module, _, files = name.partition("=")
        yield module, (files or module).split(",")


def _validation_modules(own: dict[str, list[str]], rng: random.Random) -> dict[str, list[str]]:
    """Take modules at random until they fill the validation split, leaving enough to train on.

    A module counts for at most a quarter of the split, so that a score rests on four modules or more.
    """
    share = VALIDATION_PER_LABEL // 4
    names = list(own)
    rng.shuffle(names)
    left = sum(map(len, own.values()))
    filled = 0
    taken: dict[str, list[str]] = {}
    for name in names:
        if filled >= VALIDATION_PER_LABEL:
            break
        if left - len(own[name]) >= TRAIN_PER_LABEL:
            taken[name] = own[name]
            left -= len(own[name])
            filled += min(share, len(own[name]))
    return taken


def _draw(pool: dict[str, list[str]], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Draw one text from each module in turn, so that the largest module does not fill the split."""
    rest = {name: rng.sample(texts, len(texts)) for name, texts in pool.items()}
    picked: list[tuple[str, str]] = []
    while len(picked) < count and any(rest.values()):
        picked += [(name, texts.pop()) for name, texts in rest.items() if texts]
    return picked[:count]


def _openings(folder: Path, files: list[str]) -> list[str]:
    """Read one module's docstring openings, each once, in the order of its sorted files."""
    texts: dict[str, str] = {}
    for name in files:
        single, package = folder / f"{name}.py", folder / name
        # as_posix: a Path sorts by its own separator, which differs between systems.
        paths = [single] if single.is_file() else sorted(package.rglob("*.py"), key=Path.as_posix)
        for path in paths:
            # unittest carries its own tests until 3.11, and their docstrings are test data.
            if not {"test", "tests"} & set(path.relative_to(folder).parts):
                for text in _file_openings(path):
                    texts.setdefault(text.casefold(), text)
    return list(texts.values())


def _file_openings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # A Python may warn of how its own library is spelled, which is not this task's business.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise UserError(
            f"'{path}' is not source that this Python reads ({error.msg}); name the library of the Python that runs"
        ) from error
    for node in _documented(tree):
        text = _opening(ast.get_docstring(node) or "")
        if len(text.split()) >= MIN_WORDS:
            yield text


def _documented(
    node: ast.Module | ast.ClassDef,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Walk a module or class and its public members; functions inside functions are not public."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            if isinstance(child, ast.ClassDef):
                yield from _documented(child)
            else:
                yield child


def _opening(docstring: str) -> str:
    r"""Return a docstring's opening prose: whole paragraphs up to the first code or list, cut short.

    Empty when the docstring opens with something else, such as a prompt or a signature.

    >>> _opening("Return the mode.\n\nThe data may\nbe nominal.\n\n>>> mode([1, 1, 2])\n1")
    'Return the mode. The data may be nominal.'
    >>> _opening(">>> mode([1, 1, 2])")
    ''
    """
    words: list[str] = []
    for paragraph in re.split(r"\n[ \t]*\n", docstring.strip("\n")):
        # `isalpha` on the unstripped text: an indented paragraph is code, and a list starts with its mark.
        if not paragraph[:1].isalpha() or ">>>" in paragraph or "->" in paragraph:
            break
        words += paragraph.split()
    return " ".join(words[:MAX_WORDS])
