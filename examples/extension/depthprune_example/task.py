"""A task: which vowel do the syllables of a text end in?"""

import itertools

from depthprune.tasks.base import TRAIN, Task, TaskData, TaskOptions, task

VOWELS = ("a", "e")


@task("vowels")
def vowels(options: TaskOptions) -> TaskData:
    """Which vowel do the syllables end in; accuracy. Made up, needs no network."""
    from datasets import Dataset

    rows = [
        {"text": " ".join(consonant + VOWELS[label] for consonant in consonants), "label": label}
        for consonants in itertools.permutations("bdfgk", 2)
        for label in range(len(VOWELS))
    ]
    entry = Task("vowels", ("text",), "label", VOWELS, ("accuracy",))
    return TaskData(entry, {TRAIN: Dataset.from_list(rows[:24]), "validation": Dataset.from_list(rows[24:])})
