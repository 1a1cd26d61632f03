"""Vocabularies of words and characters, learnt from training sentences alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

DIGIT = re.compile(r"\d")
PADDING_CODE, UNKNOWN, BEGIN, END = range(4)  # codes 2 and 3 are of characters alone


class WordVocabulary:
    """Codes of words: 0 pads, 1 is for words that training did not have.

    All digits are one: 1984 and 2026 are the same word.

    Args:
        words: The known words, as ``normalise`` writes them.
        lower: Whether upper and lower case are the same.
    """

    def __init__(self, words: Sequence[str], lower: bool) -> None:
        self.words = list(words)
        self.lower = lower
        self._codes = {word: code for code, word in enumerate(words, UNKNOWN + 1)}

    @classmethod
    def learn(cls, forms: Iterable[str], lower: bool, min_count: int) -> "WordVocabulary":
        """Learns the words that stand at least ``min_count`` times, the most frequent first."""
        found = cls((), lower)
        counts = Counter(map(found.normalise, forms))
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), lower)

    def __len__(self) -> int:
        return len(self.words) + UNKNOWN + 1

    def normalise(self, form: str) -> str:
        """Returns a word as the vocabulary writes it."""
        form = DIGIT.sub("0", form)
        return form.lower() if self.lower else form

    def encode(self, forms: Sequence[str]) -> np.ndarray:
        """Returns the code of each word: (len(forms),) int64."""
        codes = [self._codes.get(self.normalise(form), UNKNOWN) for form in forms]
        return np.array(codes, dtype=np.int64)


class CharacterVocabulary:
    """Codes of characters: 0 pads, 1 is unknown, 2 begins a word and 3 ends it.

    Args:
        characters: The known characters, as one text; its digits are all '0'.
        longest: The longest word; of a longer one the first and the last half are kept.
    """

    def __init__(self, characters: str, longest: int) -> None:
        self.characters = characters
        self.longest = longest

    @classmethod
    def learn(cls, forms: Iterable[str], longest: int, min_count: int = 2) -> "CharacterVocabulary":
        """Learns the characters that stand at least ``min_count`` times, in order of their codes.

        Rarer ones are unknown in training, so that networks learn what to make of unknown ones.
        """
        counts: Counter[str] = Counter()
        for form, count in Counter(forms).items():
            for character in DIGIT.sub("0", form):
                counts[character] += count
        kept = sorted(character for character, count in counts.items() if count >= min_count)
        return cls("".join(kept), longest)

    def __len__(self) -> int:
        return len(self.characters) + END + 1

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {character: code for code, character in enumerate(self.characters, END + 1)}

    def encode(self, forms: Sequence[str]) -> np.ndarray:
        """Returns the codes of the characters of each word, (len(forms), longest + 2) int64."""
        rows = np.full((len(forms), self.longest + 2), PADDING_CODE, dtype=np.int64)
        tail = self.longest // 2
        for row, form in zip(rows, forms, strict=True):
            text = DIGIT.sub("0", form)
            if len(text) > self.longest:
                text = text[: self.longest - tail] + text[len(text) - tail :]
            row[0] = BEGIN
            row[1 : len(text) + 1] = [self._codes.get(character, UNKNOWN) for character in text]
            row[len(text) + 1] = END
        return rows
