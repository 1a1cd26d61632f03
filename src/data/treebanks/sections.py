"""The sentences of a treebank: read from its files, joined with entities, and dealt to splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from src.data.tables.splits import split_by_groups
from src.data.treebanks.conllu import OnError, Sentences, read_conllu, read_plain_text
from src.data.treebanks.entities import Entities, join_entities, read_iob2
from src.data.treebanks.files import find_entities, find_treebank
from src.data.treebanks.labels import Labels, read_labels
from src.errors import UserError


@dataclass(frozen=True)
class Section:
    """Some sentences of a file, which belong to a split.

    Attributes:
        side: The side whose file it is, or 'new'.
        rows: The numbers of the sentences.
        ner_only: Whether labels of entities alone count.
    """

    side: str
    rows: np.ndarray
    ner_only: bool = False


class TreebankSections:
    """Reads the files of a treebank, each once, and says which sentences train.

    Args:
        root: Folder of the treebank.
        entities: Folder of the entities; None where no task takes any.
        entities_train: Whose entities train.
        entities_share: Share of the dev sentences that train if these are those of dev.
        genre: Pattern in a sentence's id whose group is the genre.
        val_fraction: Share of the training sentences that validates where there is no dev file.
        split_seed: Seed of the splits by documents.
        on_error: skip: leaves out a sentence that is not as the format says.
        path: File of new sentences, if there are any.
        download: Whether English EWT is fetched into a folder without a treebank.

    Attributes:
        notes: What was noticed while entities were joined, one line each.
        remarks: Which sentences were left out, one line each.
    """

    def __init__(
        self,
        root: str,
        entities: str | None,
        entities_train: Literal["train", "dev"],
        entities_share: float,
        genre: str,
        val_fraction: float,
        split_seed: int,
        on_error: OnError,
        path: str | None,
        download: bool,
    ) -> None:
        self.root = root
        self.entities = entities
        self.entities_train = entities_train
        self.entities_share = entities_share
        self.genre = genre
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.on_error: OnError = on_error
        self.path = path
        self.download = download
        self.notes: list[str] = []
        self.remarks: list[str] = []
        self._sentences: dict[str, Sentences] = {}
        self._entity_labels: dict[str, list[str]] = {}

    @cached_property
    def paths(self) -> dict[str, list[Path]]:
        """The files of each side: train, val and test, and 'entities <side>'."""
        found = find_treebank(self.root, self.download)
        if self.entities is not None:
            for side, files in find_entities(self.entities).items():
                found[f"entities {side}"] = files
        return found

    def list_files(self) -> list[str]:
        """Lists the files that sentences are read from."""
        if self.path is not None:
            return [self.path]
        return [str(path) for paths in self.paths.values() for path in paths]

    def read(self, side: str) -> Sentences:
        """Returns the sentences of a side, or 'new' ones; each file is read once."""
        if side in self._sentences:
            return self._sentences[side]
        if side == "new":
            assert self.path is not None
            is_text = self.path.removesuffix(".gz").endswith(".txt")
            found = read_plain_text(self.path) if is_text else read_conllu(self.path, self.on_error)
        else:
            found = Sentences()
            for path in self.paths[side]:
                found.append(read_conllu(path, self.on_error))
        self._sentences[side] = found
        self.remarks += describe_skipped(found.skipped)
        return found

    def entity_labels(self, side: str) -> list[str] | None:
        """Returns the entity label of each word of a side, '_' where missing; None for none."""
        files = [] if side == "new" else self.paths.get(f"entities {side}", [])
        if not files:
            return None
        if side not in self._entity_labels:
            found = Entities()
            for path in files:
                each = read_iob2(path, self.on_error)
                found.tags |= each.tags
                found.mended += each.mended
                found.skipped += each.skipped
            labels, joined, different = join_entities(self.read(side), found)
            self._entity_labels[side] = labels
            self._note_entities(side, found, joined, different)
        return self._entity_labels[side]

    def _note_entities(self, side: str, found: Entities, joined: int, different: int) -> None:
        text = (
            f"entities of the {side} file: {joined} of {len(self.read(side))} sentences have them"
        )
        if different:
            text += f"; {different} have none, since their words differ in the two files"
        self.notes.append(text)
        if found.mended:
            self.notes.append(
                f"{len(found.mended)} labels I-X that continue no entity are read as B-X: "
                f"{found.mended[0]}"
            )
        self.remarks += describe_skipped(found.skipped)

    @cached_property
    def splits(self) -> dict[str, list[Section]]:
        """The sentences of each split; all of them test if there are new ones."""
        if self.path is not None:
            return {"test": [Section("new", np.arange(len(self.read("new"))))]}
        train = Section("train", np.arange(len(self.read("train"))))
        if self.paths["val"]:
            val = Section("val", np.arange(len(self.read("val"))))
        else:
            train, val = self._divide(train, self.val_fraction)
        found = {"train": [train]}
        if self.entities is not None and self.entities_train == "dev":
            moved, val = self._divide(val, 1 - self.entities_share)
            found["train"].append(Section(moved.side, moved.rows, ner_only=True))
        return found | {
            "val": [val],
            "test": [Section("test", np.arange(len(self.read("test"))))],
        }

    def _divide(self, section: Section, share: float) -> tuple[Section, Section]:
        """Cuts a section at random; documents stay whole, and the second part has the share."""
        sentences = self.read(section.side)
        groups = [sentences.documents[row] or sentences.ids[row] for row in section.rows]
        side = split_by_groups(np.array(groups), share, 0.0, self.split_seed)
        parts = [Section(section.side, section.rows[side == name]) for name in ("train", "val")]
        if not all(len(part.rows) for part in parts):
            raise UserError(
                f"{self.root}: the {section.side} file has {len(section.rows)} sentences, which "
                "cannot be divided"
            )
        return parts[0], parts[1]

    # -- what sentences hold -----------------------------------------------------------------------
    def labels(self, side: str, target: str) -> Labels:
        """Returns the label of each word of a side, or for the genre of each sentence."""
        entities = self.entity_labels(side) if target == "ner" else None
        return read_labels(target, self.read(side), entities, self.genre)

    def training_labels(self, target: str) -> list[str | None]:
        """Returns the labels that train, of words, or for the genre of sentences."""
        found: list[str | None] = []
        for section in self.splits["train"]:
            if section.ner_only and target != "ner":
                continue
            labels = self.labels(section.side, target)
            if target == "genre":
                found += [labels[row] for row in section.rows]
                continue
            offsets = self.read(section.side).offsets
            for row in section.rows:
                found += labels[offsets[row] : offsets[row + 1]]
        return found

    @cached_property
    def training_forms(self) -> list[str]:
        """All words of the training sentences."""
        forms: list[str] = []
        for section in self.splits["train"]:
            sentences = self.read(section.side)
            for row in section.rows:
                forms += sentences.words_of(row)
        return forms


def describe_skipped(skipped: Sequence[str]) -> list[str]:
    """Returns a line that counts the sentences that were left out, and says why for a few."""
    if not skipped:
        return []
    more = f", and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    counted = "1 sentence is" if len(skipped) == 1 else f"{len(skipped)} sentences are"
    return [f"{counted} left out: {'; '.join(skipped[:3])}{more}"]
