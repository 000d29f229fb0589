"""A plain checkpoint as a folder of sentence-transformers: the transformer, its pooling, and perhaps a normalisation.

Weights, tokenizer and other files are copied unchanged, including a head, which sentence-transformers ignores.
`modules.json` and `1_Pooling/config.json` have the entries that all versions of the library read.

Shapes: B sequences, T tokens, D hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthprune.checkpoints.card import CARD_FILE, card_for_library
from depthprune.checkpoints.companions import MODULES_FILE, beside, card_of, copy_files
from depthprune.checkpoints.history import PROVENANCE_FILE
from depthprune.checkpoints.layout import INDEX_FILE, file_inside
from depthprune.errors import CannotExportError, UserError
from depthprune.exporting.base import Exported, exporter
from depthprune.optional import require
from depthprune.pooled.folder import write_modules
from depthprune.sources import VOCABULARY_FILES, locate

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("mean", "cls", "lasttoken", "max")
PROBES = ("A cat sat on the mat.", "Fewer layers, the same words!", "7")
TOLERANCE = 1e-4  # of the largest value: the sums over tokens are taken in another order


@dataclass(frozen=True)
class SentenceOptions:
    """What makes one vector of a sentence.

    Args:
        pooling: mean, cls, lasttoken or max over the states of the last layer.
        normalize: whether the vector gets the length one.
    """

    pooling: str = "mean"
    normalize: bool = False


@exporter("sentence-transformers", extra="sentence-transformers", options=SentenceOptions)
def export_sentences(checkpoint: Path, target: Path, options: SentenceOptions) -> Exported:
    """A folder of sentence-transformers that pools the last layer (pooling=mean, normalize=false)."""
    library = require(
        "sentence_transformers", extra="sentence-transformers", purpose="exporting to sentence-transformers"
    )
    if options.pooling not in POOLINGS:
        raise UserError(f"there is no pooling '{options.pooling}'; it is one of {', '.join(POOLINGS)}")
    if (checkpoint / MODULES_FILE).exists():
        raise UserError(f"'{checkpoint}' is a sentence-transformers folder already; copy it as it is")
    if not any((checkpoint / name).is_file() for name in VOCABULARY_FILES):
        raise UserError(f"'{checkpoint}' has no tokenizer, and sentences need one; save the tokenizer beside the model")
    source = locate(checkpoint)
    own = ("config.json", "generation_config.json", PROVENANCE_FILE, INDEX_FILE)
    names = [*(file.name for file in source.weights), *(name for name in own if (checkpoint / name).is_file())]
    for name in names:
        file_inside(checkpoint, name)
    copy_files(checkpoint, target, [*names, *beside(checkpoint)])
    expected = _expected(checkpoint, options)
    last = "Normalize" if options.normalize else ""
    write_modules(target, options.pooling, size=expected[0].shape[-1], last=last)
    card = card_for_library(card_of(checkpoint) or "", "sentence-transformers")
    (target / CARD_FILE).write_text(card, encoding="utf-8")
    return Exported(target, _prove(library, target, expected))


def _expected(checkpoint: Path, options: SentenceOptions) -> "list[Tensor]":
    """Return the vectors of the sentences to compare, by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from depthprune.surgery.modules import REFUSALS, first_line

    pool: Callable[[Any, Any], Any] = {
        "mean": lambda states_TD, mask_T: states_TD[mask_T].mean(dim=0),
        "cls": lambda states_TD, mask_T: states_TD[mask_T][0],
        "lasttoken": lambda states_TD, mask_T: states_TD[mask_T][-1],
        "max": lambda states_TD, mask_T: states_TD[mask_T].amax(dim=0),
    }[options.pooling]
    found = []
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModel.from_pretrained(checkpoint, dtype="auto").eval()
        with torch.no_grad():
            for text in PROBES:
                encoded = tokenizer(text, return_tensors="pt")
                states_TD = model(**encoded).last_hidden_state[0].float()
                vector_D = pool(states_TD, encoded["attention_mask"][0].bool())
                found.append(vector_D / vector_D.norm() if options.normalize else vector_D)
    except (OSError, *REFUSALS) as error:
        raise CannotExportError(
            f"'{checkpoint}' makes no states of sentences ({first_line(error)}); export an encoder of text"
        ) from None
    return found


def _prove(library: Any, target: Path, expected: "list[Tensor]") -> str:
    """Compare what sentence-transformers makes of the folder with what is expected of it.

    Raises:
        CannotExportError: if the folder cannot be loaded, or gives other vectors.
    """
    from depthprune.surgery.modules import REFUSALS, first_line

    try:
        model = library.SentenceTransformer(str(target), device="cpu")
        vectors = [model.encode(text, convert_to_tensor=True, show_progress_bar=False).float() for text in PROBES]
    except (OSError, *REFUSALS) as error:
        raise CannotExportError(f"sentence-transformers does not load what was written ({first_line(error)})") from None
    for text, vector_D, expected_D in zip(PROBES, vectors, expected, strict=True):
        off = (vector_D - expected_D).abs().max() / expected_D.abs().max()
        if vector_D.shape != expected_D.shape or not off <= TOLERANCE:
            raise CannotExportError(
                f"sentence-transformers makes another vector of '{text}' (off by {float(off):.1e}); nothing was "
                "written, please report it"
            )
    return f"sentence-transformers makes the vectors of transformers' own model of {len(PROBES)} sentences"
