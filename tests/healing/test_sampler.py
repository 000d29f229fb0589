"""The order of training rows: every row once, like lengths together, batches in no order."""

import itertools

import torch

from depthprune.healing.sampler import SimilarLengthSampler

LENGTHS = torch.randint(5, 100, (1003,), generator=torch.Generator().manual_seed(3)).tolist()


def sampler(seed: int = 0) -> SimilarLengthSampler:
    return SimilarLengthSampler(LENGTHS, batch_size=10, generator=torch.Generator().manual_seed(seed))


def longest_of_batches(order: list[int]) -> list[int]:
    return [max(LENGTHS[i] for i in order[at : at + 10]) for at in range(0, len(order), 10)]


def test_a_pass_has_every_row_once_and_the_next_pass_another_order():
    one = sampler()
    first, second = list(one), list(one)

    assert sorted(first) == sorted(second) == list(range(1003))
    assert first != second and first == list(sampler()) != list(sampler(seed=1))


def test_batches_hold_like_lengths_which_saves_padding():
    shuffled = torch.randperm(1003, generator=torch.Generator().manual_seed(0)).tolist()

    assert sum(longest_of_batches(list(sampler()))) < 0.65 * sum(longest_of_batches(shuffled))


def test_batches_do_not_run_from_long_to_short():
    longest = longest_of_batches(list(sampler()))[:-1]
    half = len(longest) // 2
    means = [sum(part) / len(part) for part in (longest[:half], longest[half:])]

    assert abs(means[0] - means[1]) < 20
    falls = sum(a > b for a, b in itertools.pairwise(longest))
    assert 0.35 < falls / (len(longest) - 1) < 0.65
