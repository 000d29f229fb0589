"""The order of training rows: batches of similar length, in random order.

Rows of like length in one batch save padding. transformers' own `group_by_length` sorts stretches of the data from
long to short and keeps that order, so that every stretch, and the end of the training, sees the shortest texts last;
on STS-B, where length goes with the source of a pair, that cost points (dev/LOG.md). Here the batches are shuffled.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

STRETCH = 50  # batches that are sorted together: more save more padding, fewer mix rows better


class SimilarLengthSampler(Sampler[int]):
    """Yields row indices, of which each consecutive `batch_size` are of similar length.

    Args:
        lengths: tokens of every row.
        batch_size: rows a batch.
        generator: of the order; every pass draws a new one from it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator):
        self._lengths = lengths
        self._batch_size = batch_size
        self._generator = generator

    def __len__(self) -> int:
        return len(self._lengths)

    def skip(self, passes: int) -> None:
        """Draw the order of so many passes, and go through none of them: a training is resumed after these."""
        for _ in range(passes):
            list(self)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self._lengths), generator=self._generator).tolist()
        size = self._batch_size
        # An incomplete batch has to come last, or it would shift the ones after it: it is split off at random.
        whole = len(order) - len(order) % size
        rest, order = order[whole:], order[:whole]
        batches = []
        for start in range(0, whole, STRETCH * size):
            stretch = sorted(order[start : start + STRETCH * size], key=self._lengths.__getitem__)
            batches += [stretch[at : at + size] for at in range(0, len(stretch), size)]
        for batch in torch.randperm(len(batches), generator=self._generator).tolist():
            yield from batches[batch]
        yield from rest
