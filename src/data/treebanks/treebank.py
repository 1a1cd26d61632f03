"""Treebanks of Universal Dependencies: several labels for each word, and one for each sentence."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from src.batch import InputShape
from src.data.datamodule import MultiTaskDataModule, Split
from src.data.kinds import task_from_plain
from src.data.length_batches import LengthBatches
from src.data.rows import BatchDataset
from src.data.tables.targets import refuse_unknown_settings
from src.data.treebanks.conllu import OnError
from src.data.treebanks.labels import (
    check_genre,
    check_targets,
    encode_labels,
    list_features,
    make_task,
    name_tasks,
)
from src.data.treebanks.notes import describe_treebank
from src.data.treebanks.record import find_changed, make_schema, read_schema
from src.data.treebanks.sections import Section, TreebankSections
from src.data.treebanks.sequences import SequenceRows, WordTypes
from src.data.treebanks.vocabulary import CharacterVocabulary, WordVocabulary
from src.errors import UserError
from src.tasks import MISSING, Task


class Treebank(MultiTaskDataModule):
    """A treebank of Universal Dependencies, with its own split into train, dev and test.

    Tasks for each word are ``upos``, ``xpos``, ``feats`` (all features of a word as one class),
    ``feats.Number`` (one feature; missing where a word has none), ``feats.*`` (all features with
    several values), ``deprel`` (the relation to the word's head) and ``ner`` (entities, from IOB2
    files that are joined by sentence ids). ``genre`` is one for each sentence. A treebank is a
    folder from https://universaldependencies.org, and entities for some are at
    https://github.com/UniversalNER. What is learnt of words, characters and labels is learnt from
    training sentences; a label that they lack counts as an error where it tests.

    Entities may be labelled for the dev and test sentences alone. Then ``entities_train: dev``
    moves a share of the dev documents to the training sentences, where their entities are the only
    labels that count, so that other tasks learn from the same sentences as ever. The rest of the
    dev documents validates.

    Args:
        root: Folder with *-ud-train.conllu, *-ud-dev.conllu and *-ud-test.conllu, gzipped or not.
            Without a dev file some training documents validate.
        download: Whether English EWT is fetched into a folder without a treebank.
        targets: upos, xpos, feats, feats.<feature>, feats.*, deprel, ner, genre.
        tasks: {task: its kind or settings}, as in Table; the task of feats.Number is feats_Number.
        entities: Folder with *-ud-{train,dev,test}.iob2; ``root`` if it is not given.
        entities_train: Whose entities train: those of the train file, or some of dev.
        entities_share: Share of the dev sentences that train then.
        genre: Pattern in a sentence's id whose group is the genre.
        lower: Whether words are lower-cased; their characters keep their case.
        min_count: How often a word must stand in the training sentences to have a code of its own.
        word_dropout: a: training hides a word of n training sentences with probability a / (a + n),
            so that the network learns what to make of words that it does not know.
        max_characters: Of longer words the first and the last half of as many characters are read.
        val_fraction: Share of the training sentences that validates where there is no dev file.
        split_seed: Seed of the two splits by documents.
        on_error: skip: leaves out a sentence of a file that is not as the format says, and says so.
        path: New sentences for evaluate and predict: a CoNLL-U file, or a .txt file with a sentence
            a line and spaces between words.
        schema_path: A run's schema.json.
        batch_size: Sentences per step over all devices together.
        eval_batch_size: Sentences per evaluation step over all devices.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches, and of the words that training hides.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        targets: list[str] | None = None,
        tasks: dict[str, Any] | None = None,
        entities: str | None = None,
        entities_train: Literal["train", "dev"] = "train",
        entities_share: float = 0.8,
        genre: str = "^([^-]+)-",
        lower: bool = True,
        min_count: int = 1,
        word_dropout: float = 0.25,
        max_characters: int = 20,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        on_error: OnError = "refuse",
        path: str | None = None,
        schema_path: str | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.targets = ["upos", "xpos", "feats", "deprel"] if targets is None else targets
        self.settings = tasks or {}
        self.lower = lower
        self.min_count = min_count
        self.word_dropout = word_dropout
        self.max_characters = max_characters

        check_targets(self.targets)
        check_genre(genre)
        check_numbers(self, entities_share, val_fraction)
        self._saved = None if schema_path is None else read_schema(schema_path)
        # of the run that the model starts from
        self._carried: dict[str, Any] | None = None
        if path is not None and self._saved is None:
            raise UserError(
                "data.path names new sentences for python -m src.evaluate and src.predict; "
                "training reads those of data.root"
            )
        folder = (entities or root) if "ner" in self.targets else None
        self.text = TreebankSections(
            root,
            folder,
            entities_train,
            entities_share,
            genre,
            val_fraction,
            split_seed,
            on_error,
            path,
            download,
        )
        # what was left out is told as remarks are
        self.text.remarks = self.remarks
        self._splits: dict[str, SequenceRows] = {}

    # -- tasks -------------------------------------------------------------------------------------
    @cached_property
    def targets_of_tasks(self) -> dict[str, str]:
        """{task: target}, as upos or feats.Number."""
        if self._saved is not None:
            return dict(self._saved["targets"])
        features: list[str] = []
        if "feats.*" in self.targets:
            features, _ = list_features(self.text.training_labels("feats"))
            if not features:
                raise UserError(f"{self.text.root}: no feature of the train file has two values")
        names = name_tasks(self.targets, features)
        refuse_unknown_settings(self.settings, names)
        return names

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task per target, with the classes of the training sentences."""
        if self._saved is not None:
            return {name: task_from_plain(each) for name, each in self._saved["tasks"].items()}
        tasks = {}
        for name, target in self.targets_of_tasks.items():
            labels = self.text.training_labels(target)
            try:
                tasks[name] = make_task(target, labels, self.settings.get(name, {}))
            except UserError as error:
                hint = ""
                if target == "ner" and self.text.entities_train == "train":
                    hint = "; where its file is not at hand, --data.entities_train dev"
                raise UserError(f"{self.text.root}: target '{target}' {error}{hint}") from None
        return tasks

    # -- inputs ------------------------------------------------------------------------------------
    def start_from(self, schema: str, source: str, of: str | None = None) -> None:
        """Takes over the words and characters of a run, whose codes its network knows."""
        if self._saved is not None or of is not None:
            return
        self._carried = read_schema(schema)
        if self._carried["lower"] != self.lower:
            here, there = (str(each).lower() for each in (self.lower, self._carried["lower"]))
            raise UserError(
                f"data.lower is {here}, and was {there} in {source}, whose words are taken over: "
                f"set --data.lower {there}, or --init_from.normalisation new"
            )

    @cached_property
    def words(self) -> WordVocabulary:
        """The words of the training sentences."""
        known = self._saved or self._carried
        if known is not None:
            return WordVocabulary(known["words"], known["lower"])
        return WordVocabulary.learn(self.text.training_forms, self.lower, self.min_count)

    @cached_property
    def characters(self) -> CharacterVocabulary:
        """The characters of the training sentences."""
        if self._saved is not None:
            return CharacterVocabulary(self._saved["characters"], self._saved["max_characters"])
        if self._carried is not None:
            return CharacterVocabulary(self._carried["characters"], self.max_characters)
        return CharacterVocabulary.learn(self.text.training_forms, self.max_characters)

    @property
    def input_shape(self) -> InputShape:
        """The sizes of the two vocabularies."""
        return InputShape(tokens=len(self.words), parts=len(self.characters))

    def _encode_words(self, forms: list[str], trains: bool) -> tuple[WordTypes, Tensor]:
        """Returns the different words, and the number of each word among them."""
        types = {form: number for number, form in enumerate(dict.fromkeys(forms))}
        tokens = torch.from_numpy(self.words.encode(list(types)))
        parts = torch.from_numpy(self.characters.encode(list(types)))
        hidden = None
        if trains and self.word_dropout:
            counts = np.bincount(self.words.encode(self.text.training_forms))
            counts_of_types = torch.from_numpy(counts)[tokens].double()
            hidden = self.word_dropout / (self.word_dropout + counts_of_types)
        words = torch.tensor([types[form] for form in forms])
        return WordTypes(tokens, parts, hidden), words

    # -- splits ------------------------------------------------------------------------------------
    def split(self, name: Split) -> SequenceRows:
        """Returns a split; prediction takes the test sentences, or all of ``path``.

        Raises:
            UserError: A split of new sentences is asked for, which have none.
        """
        key = "test" if name == "predict" else name
        if self.is_new and key != "test":
            raise UserError(
                f"{self.text.path} holds new sentences, and none of them is of the run's {name} "
                "split: leave --split out"
            )
        if key not in self._splits:
            self._splits[key] = self._make_rows(self.text.splits[key], trains=key == "train")
        return self._splits[key]

    def _make_rows(self, sections: Sequence[Section], trains: bool) -> SequenceRows:
        forms: list[str] = []
        starts = []
        lengths = []
        row_info: dict[str, list[Any]] = {"id": [], "words": []}
        for section in sections:
            sentences = self.text.read(section.side)
            starts.append(sentences.offsets[section.rows] + len(forms))
            lengths.append(np.diff(sentences.offsets)[section.rows])
            forms += sentences.forms
            row_info["id"] += [sentences.ids[row] for row in section.rows]
            row_info["words"] += [" ".join(sentences.words_of(row)) for row in section.rows]

        types, words = self._encode_words(forms, trains)
        of_words: dict[str, Tensor] = {}
        of_sentences: dict[str, Tensor] = {}
        for name, target in self.targets_of_tasks.items():
            place = of_sentences if target == "genre" else of_words
            place[name] = torch.cat([self._encode_labels(name, each) for each in sections])
        return SequenceRows(
            types,
            words,
            torch.from_numpy(np.concatenate(starts)),
            torch.from_numpy(np.concatenate(lengths)),
            of_words,
            of_sentences,
            row_info,
        )

    def _encode_labels(self, name: str, section: Section) -> Tensor:
        """Returns the targets of all words of a section's file, or of the section's sentences."""
        target = self.targets_of_tasks[name]
        labels = self.text.labels(section.side, target)
        try:
            codes = encode_labels(self.tasks[name], labels)
        except UserError as error:
            raise UserError(f"{self.text.root}: target '{target}' {error}") from None
        if section.ner_only and target != "ner":
            codes = torch.full_like(codes, MISSING)
        # half a million labels for each of 20 tasks: small integers keep them in the cache
        return codes[section.rows] if target == "genre" else codes.to(torch.int16)

    # -- batches -----------------------------------------------------------------------------------
    def training_batches(self, rows: BatchDataset, shuffle: bool) -> LengthBatches:
        """Returns a sampler of sentences of like length."""
        assert isinstance(rows, SequenceRows)
        return LengthBatches(rows.lengths, self.batch_size, shuffle, self.seed)

    def evaluation_batches(self, rows: BatchDataset) -> LengthBatches:
        """Returns a sampler of all sentences, the shortest first."""
        assert isinstance(rows, SequenceRows)
        return LengthBatches(rows.lengths, self.eval_batch_size, shuffle=False)

    # -- the run's data ----------------------------------------------------------------------------
    @property
    def is_new(self) -> bool:
        """Whether ``path`` names other sentences than those of the run whose schema is given."""
        return self.text.path is not None

    def schema(self) -> dict[str, Any]:
        """Returns the vocabularies, the tasks and the files, for later commands."""
        return self._saved or make_schema(self)

    def fingerprint(self) -> dict[str, Any]:
        """Returns the files, and the number of sentences of each split."""
        counts = {}
        for name, sections in self.text.splits.items():
            counts[name] = sum(len(section.rows) for section in sections)
        return {"files": self.schema()["files"], "rows": counts}

    def check_files(self, all_there: bool = True) -> None:
        """Checks that the files are those of the run; new sentences need none of them."""
        if self._saved is not None and not self.is_new:
            find_changed(self.text, self._saved["files"], all_there)

    def files(self) -> list[str]:
        return self.text.list_files()

    # -- notes -------------------------------------------------------------------------------------
    def notes(self) -> list[str]:
        """Returns the tasks with their labels, the vocabularies and the sizes of the splits."""
        return describe_treebank(self)

    def describe(self, name: Split) -> str:
        rows = self.split(name)
        words = f"{len(rows)} sentences with {int(rows.lengths.sum())} words"
        return f"{words} of {self.text.path}" if self.is_new else f"{words} of the {name} split"


def check_numbers(treebank: Treebank, entities_share: float, val_fraction: float) -> None:
    """Checks the numbers among the settings.

    Raises:
        UserError: One is out of range.
    """
    for key, share in (("entities_share", entities_share), ("val_fraction", val_fraction)):
        if not 0 < share < 1:
            raise UserError(f"data.{key} is {share}; a share lies between 0 and 1")
    if treebank.min_count < 1:
        raise UserError(f"data.min_count is {treebank.min_count}; it must be at least 1")
    if treebank.word_dropout < 0:
        raise UserError(f"data.word_dropout is {treebank.word_dropout}; it must be at least 0")
    if treebank.max_characters < 2:
        raise UserError(f"data.max_characters is {treebank.max_characters}; it must be at least 2")
    if treebank.min_count == 1 and not treebank.word_dropout:
        rank_zero_warn(
            "data.word_dropout 0 and data.min_count 1: training has no unknown word, so that the "
            "network cannot know what to make of one"
        )
