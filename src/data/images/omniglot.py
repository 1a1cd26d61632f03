"""Omniglot: handwritten characters of many alphabets, twenty drawings of each."""

import re
import zipfile
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from src.batch import Batch, InputShape
from src.data.datamodule import MultiTaskDataModule
from src.data.download import fetch
from src.data.episodic import EpisodeRows
from src.data.rows import Rows, Split
from src.data.tables.record import fingerprint_file
from src.errors import UserError, suggest_or_list
from src.tasks import MISSING, Classification, Task

SOURCE = "https://github.com/brendenlake/omniglot/tree/master/python"
ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
WHOLE = "images_background.zip"
SMALL = ("images_background_small1.zip", "images_background_small2.zip")
RUNS = "all_runs.zip"
WHOLE_MD5 = "68d2efa1b9178cc56df9314c21c6e718"
RUNS_SHA256 = "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325"

SIDE = 28  # of an image in pixels; 105 in the files
VALIDATION = 3  # of the 20 drawings of a character
TEST = 3
DRAWING = re.compile(r"[^/]+/([^/]+)/character(\d+)/\d+_(\d+)\.png")


class Drawings(NamedTuple):
    """All drawings, in the order of alphabet, character and drawer.

    Attributes:
        images: (N, 1, 28, 28) ink from 0 to 1.
        alphabets: (N,) names.
        characters: (N,) numbers within the alphabet.
        drawers: (N,) numbers from 1.
    """

    images: Tensor
    alphabets: list[str]
    characters: list[int]
    drawers: list[int]


class Omniglot(MultiTaskDataModule):
    """Characters of many alphabets (Lake, Salakhutdinov and Tenenbaum, Science 2015).

    Its labels ``joint`` are two tasks, ``character`` and ``alphabet``; ``alphabets`` are one task
    for each alphabet, with its own characters. Of the 20 drawings of a character 14 train, 3
    validate and 3 test, by who drew them. Images are 28 x 28 pixels, ink from 0 to 1.

    ``Episodes`` draws from all drawings, with ``target: character``; ``keep_together: alphabet``
    keeps whole alphabets for the test, and ``own_runs`` tests on the 20 runs that come with the
    data: 20 characters each, from other alphabets.

    Args:
        root: Folder with images_background.zip, or with the two images_background_small zips; and
            all_runs.zip for the runs. They are read as they are.
        download: Whether files that are not there are fetched.
        labels: joint or alphabets.
        alphabets: The alphabets to use; None for all in the files.
        rotations: Whether characters turned by 90, 180 and 270 degrees are classes of their own.
        split_seed: Seed of the choice of people whose drawings validate and test.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices together.
        num_workers: Processes that prepare batches; 0 is fastest for data in memory.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        labels: Literal["joint", "alphabets"] = "joint",
        alphabets: list[str] | None = None,
        rotations: bool = False,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, seed)
        self.root = Path(root)
        self.download = download
        self.labels = labels
        self.chosen = alphabets
        self.rotations = rotations
        self.split_seed = split_seed
        self.paths = self._find_images()

    # -- files -------------------------------------------------------------------------------------
    def _find_images(self) -> list[Path]:
        """Returns the zips with the images.

        Raises:
            UserError: There are none.
        """
        whole = self.root / WHOLE
        if not whole.is_file():
            small = [self.root / name for name in SMALL if (self.root / name).is_file()]
            if small:
                return small
            if not self.download:
                raise UserError(
                    f"{self.root}: neither {WHOLE} nor {SMALL[0]} is there; get them from "
                    f"{SOURCE}, or add --data.source.download true (without Episodes, "
                    "--data.download true)"
                )
            fetch(ADDRESS + WHOLE, whole, md5=WHOLE_MD5)
        return [whole]

    def _find_runs(self) -> Path:
        """Returns the zip with the runs.

        Raises:
            UserError: It is not there.
        """
        path = self.root / RUNS
        if not path.is_file():
            if not self.download:
                raise UserError(f"{self.root}: {RUNS} is not there; get it from {SOURCE}")
            fetch(f"{ADDRESS}one-shot-classification/{RUNS}", path, sha256=RUNS_SHA256)
        return path

    def files(self) -> list[str]:
        return [str(path) for path in self.paths]

    def fingerprint(self) -> dict[str, Any]:
        """Returns the zips with their hashes."""
        return {"files": {path.name: fingerprint_file(str(path)) for path in self.paths}}

    # -- drawings ----------------------------------------------------------------------------------
    @cached_property
    def drawings(self) -> Drawings:
        """All drawings of the chosen alphabets, each once."""
        found: dict[tuple[str, int, int], np.ndarray] = {}
        for path in self.paths:
            with open_zip(path) as archive:
                for name in archive.namelist():
                    match = DRAWING.fullmatch(name)
                    if match is None:
                        continue
                    place = match[1], int(match[2]), int(match[3])
                    # two alphabets are in both of the small files
                    if place not in found and (self.chosen is None or match[1] in self.chosen):
                        found[place] = read_image(archive, name, path)
        known = {alphabet for alphabet, _, _ in found}
        for name in self.chosen or []:
            if name not in known:
                raise UserError(
                    f"data.alphabets names '{name}', which is not in {self.paths[0].name}; "
                    f"{suggest_or_list(name, sorted(self._list_alphabets()))}"
                )
        if not found:
            raise UserError(f"{self.paths[0]}: holds no drawing <alphabet>/character01/0001_01.png")
        places = sorted(found)
        images = torch.from_numpy(np.stack([found[place] for place in places]))[:, None]
        alphabets, characters, drawers = map(list, zip(*places, strict=True))
        return Drawings(images, alphabets, characters, drawers)

    def _list_alphabets(self) -> set[str]:
        """Returns the alphabets in the files."""
        found = set()
        for path in self.paths:
            with open_zip(path) as archive:
                matches = map(DRAWING.fullmatch, archive.namelist())
                found |= {match[1] for match in matches if match}
        return found

    @property
    def tasks(self) -> dict[str, Task]:
        """The character and the alphabet, or one task for each alphabet."""
        names = list(dict.fromkeys(self._names))
        if self.labels == "joint":
            alphabets = sorted(set(self.drawings.alphabets))
            return {
                "character": Classification(classes=tuple(names)),
                "alphabet": Classification(classes=tuple(alphabets)),
            }
        of_alphabet: dict[str, list[str]] = {}
        for name in names:
            alphabet, _, character = name.partition("/")
            of_alphabet.setdefault(alphabet, []).append(character)
        return {
            alphabet: Classification(classes=tuple(characters))
            for alphabet, characters in of_alphabet.items()
        }

    @cached_property
    def _names(self) -> list[str]:
        """The name of each row's class, such as Greek/03, or Greek/03@90 where it is turned."""
        pairs = zip(self.drawings.alphabets, self.drawings.characters, strict=True)
        plain = [f"{alphabet}/{character:02}" for alphabet, character in pairs]
        turns = [f"@{90 * turn}" if turn else "" for turn in range(4 if self.rotations else 1)]
        return [name + turn for turn in turns for name in plain]

    @cached_property
    def _targets(self) -> dict[str, Tensor]:
        """The labels of all rows."""
        tasks = self.tasks
        alphabets = [name.partition("/")[0] for name in self._names]
        if self.labels == "joint":
            codes = {"character": self._names, "alphabet": alphabets}
            found = {}
            for task, labels in codes.items():
                found[task] = torch.tensor([self._places[task][label] for label in labels])
            return found
        found = {task: torch.full((len(alphabets),), MISSING) for task in tasks}
        for row, name in enumerate(self._names):
            alphabet, _, character = name.partition("/")
            found[alphabet][row] = self._places[alphabet][character]
        return found

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        """{task: {class: its position}}."""
        found = {}
        for name, task in self.tasks.items():
            assert isinstance(task, Classification)
            found[name] = {str(label): place for place, label in enumerate(task.classes)}
        return found

    @property
    def input_shape(self) -> InputShape:
        """One grey image."""
        return InputShape((1, SIDE, SIDE))

    def split(self, name: Split) -> Rows:
        """Returns a split; prediction takes the test images."""
        return self._splits["test" if name == "predict" else name]

    @cached_property
    def _splits(self) -> dict[str, Rows]:
        drawings = self.drawings
        images = [drawings.images.rot90(turn, (2, 3)) for turn in range(4 if self.rotations else 1)]
        inputs = torch.cat(images)

        # the same people test in every character of an alphabet
        count = max(drawings.drawers)
        generator = torch.Generator().manual_seed(self.split_seed)
        place_of = torch.randperm(count, generator=generator)
        place = place_of[torch.tensor(drawings.drawers) - 1].repeat(len(images))
        sides = {
            "test": place < TEST,
            "val": (place >= TEST) & (place < TEST + VALIDATION),
            "train": place >= TEST + VALIDATION,
        }
        splits = {}
        for name, chosen in sides.items():
            rows = chosen.nonzero().flatten()
            targets = {task: labels[rows] for task, labels in self._targets.items()}
            info = {"id": [f"{self._names[row]}-{row}" for row in rows.tolist()]}
            splits[name] = Rows(inputs[rows], targets, row_info=info)
        return splits

    # -- the runs ----------------------------------------------------------------------------------
    def runs(self) -> "OmniglotRuns":
        """Returns the 20 runs of 20-way one-shot classification."""
        return OmniglotRuns(self._find_runs())


class OmniglotRuns(EpisodeRows):
    """The 20 one-shot runs: 20 characters of one alphabet each, one drawing to learn and to tell.

    Their alphabets are in no background file. The nearest neighbour in pixels errs in 79 %; people
    in 4.5 % and Bayesian program learning in 3.3 % (Lake et al. 2015).

    Args:
        path: all_runs.zip.
    """

    def __init__(self, path: Path) -> None:
        with open_zip(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith("class_labels.txt"))
            if not names:
                raise UserError(f"{path}: holds no run01/class_labels.txt")
            images = []
            labels = []
            for name in names:
                pairs = [line.split() for line in archive.read(name).decode().splitlines() if line]
                supports = sorted(support for _, support in pairs)
                read = [read_image(archive, each, path) for each in supports]
                read += [read_image(archive, query, path) for query, _ in pairs]
                images.append(np.stack(read))
                places = {support: place for place, support in enumerate(supports)}
                labels.append([*range(len(supports)), *(places[other] for _, other in pairs)])
        super().__init__(len(names), len(supports), len(pairs))
        self.images = torch.from_numpy(np.stack(images))[:, :, None]
        self.labels = torch.tensor(labels)

    def read(self, numbers: list[int]) -> Batch:
        rows = torch.tensor(numbers)
        images = self.images[rows].flatten(0, 1)
        return Batch(images, {"label": self.labels[rows].flatten()}, torch.empty(0))


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip.

    Raises:
        UserError: It is none.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: is no zip that can be read ({error})") from None


def read_image(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """Returns an image of a zip (28, 28), ink from 0 to 1; each pixel is the mean of its box.

    Raises:
        UserError: It is no image.
    """
    try:
        image = Image.open(BytesIO(archive.read(name))).convert("L")
        small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    except (KeyError, UnidentifiedImageError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {name} is no image that can be read ({error})") from None
    return 1 - np.asarray(small, dtype=np.float32) / 255
