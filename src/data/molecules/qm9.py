"""QM9: small organic molecules, their geometry, and eleven quantities of quantum chemistry."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from src.batch import InputShape
from src.data.download import PublicFile, fetch, find_public_file, hold_folder
from src.data.molecules.structures import NO_BOND, PackedStructures, find_sdf, read_structures
from src.data.rows import Inputs
from src.data.tables.columns import Column, MemberColumn
from src.data.tables.numbers import BadValue, NumberFormat
from src.data.tables.reading import number_row
from src.data.tables.record import describe_difference, fingerprint_file, hash_rows, unpack_hashes
from src.data.tables.sides import collect_rows
from src.data.tables.splits import SIDE
from src.data.tables.table import Table
from src.errors import UserError, suggest_or_list
from src.files.atomic import write_atomically

if TYPE_CHECKING:
    import pandas as pd

HARTREE = 27_211.386246  # meV
KCAL_PER_MOL = 43.36414  # meV
ELEMENTS = (1, 6, 7, 8, 9)  # H, C, N, O, F

# task: (column of the file, factor to the unit of the errors)
QUANTITIES = {
    "mu": ("mu", 1.0),  # dipole moment, D
    "alpha": ("alpha", 1.0),  # polarizability, a0^3
    "homo": ("homo", HARTREE),  # highest occupied orbital, meV
    "lumo": ("lumo", HARTREE),  # lowest unoccupied orbital, meV
    "r2": ("r2", 1.0),  # spatial extent, a0^2
    "zpve": ("zpve", HARTREE),  # zero point vibrational energy, meV
    "U0": ("u0_atom", KCAL_PER_MOL),  # atomization energy at 0 K, meV
    "U": ("u298_atom", KCAL_PER_MOL),  # atomization energy at 298 K, meV
    "H": ("h298_atom", KCAL_PER_MOL),  # atomization enthalpy at 298 K, meV
    "G": ("g298_atom", KCAL_PER_MOL),  # atomization free energy at 298 K, meV
    "Cv": ("cv", 1.0),  # heat capacity at 298 K, cal / (mol K)
}
HELD_OUT = 10_000  # molecules that validate, and as many that test
HELD_OUT_SHARE = 0.1  # at most
HEADING = 9  # lines of uncharacterized.txt above the first molecule

ARCHIVE = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/gdb9.tar.gz"
ARCHIVE_MD5 = "560f62d8e6c992ca0cf8ed8d013f9131"
UNCHARACTERIZED = PublicFile(
    "uncharacterized.txt", "https://ndownloader.figshare.com/files/3195404"
)


@dataclass(frozen=True)
class Structure(MemberColumn):
    """A column of names of molecules, whose atoms and positions an SDF file beside the table has.

    Attributes:
        column: The column of the file.
        cutoff: Longest edge, in angstrom.
        radial: Number of Gaussians that an edge's length is expanded in.
    """

    reads_files: ClassVar[bool] = True

    cutoff: float
    radial: int

    @property
    def shape(self) -> InputShape:
        return InputShape(nodes=len(ELEMENTS), edges=NO_BOND + 1 + self.radial)

    def encode(self, series: pd.Series, path: str) -> tuple[Inputs, list[str]]:
        sdf = find_sdf(path)
        structures, names = read_structures(sdf, ELEMENTS)

        # row k of the table belongs to molecule k of the SDF file, as their names say
        for place, (row, name) in enumerate(series.items()):
            record = int(str(row))
            if record >= len(names):
                raise BadValue(
                    place, f"holds '{name}', but {sdf} ends after {len(names)} molecules"
                )
            if names[record] != name:
                raise BadValue(
                    place, f"holds '{name}', but molecule {record + 1} of {sdf} is {names[record]}"
                )
        everything = {**vars(structures), "cutoff": self.cutoff, "radial": self.radial}
        inputs = PackedStructures(**everything).as_inputs()
        assert isinstance(inputs, dict)
        where = torch.tensor(series.index.tolist())
        return {part: values[where] for part, values in inputs.items()}, []


class QM9(Table):
    """QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22), for models of graphs.

    The 11 tasks are the ones that the literature on multi-task learning uses (Navon et al.,
    "Multi-task learning as a bargaining game", ICML 2022): ``mu`` (D), ``alpha`` (a0^3), ``homo``
    and ``lumo`` (meV), ``r2`` (a0^2), ``zpve`` (meV), the atomization energies ``U0``, ``U``, ``H``
    and ``G`` (meV), and ``Cv`` (cal / (mol K)). Networks see them standardised; MAE is in these
    units. The molecules of uncharacterized.txt are left out; 10,000 of the other 130,831 validate,
    10,000 test. An atom's features are its element; each pair of atoms within ``cutoff`` has an
    edge, with its bond and its length. Needs ``pip install rdkit torch_geometric``.

    Args:
        root: Folder with gdb9.sdf, gdb9.sdf.csv and, unless all molecules shall count,
            uncharacterized.txt.
        cutoff: Longest edge, in angstrom; 10 are nearly all pairs of atoms.
        radial: Number of Gaussians that an edge's length is expanded in.
        targets: The quantities to predict; None for all.
        tasks: {task: settings}, as in Table.
        download: Whether files that are not there are fetched.
        folds: Number of folds; one of them tests.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    column_kinds = (Structure,)

    def __init__(
        self,
        root: str,
        cutoff: float = 10.0,
        radial: int = 32,
        targets: list[str] | None = None,
        tasks: dict[str, Any] | None = None,
        download: bool = False,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if cutoff <= 0 or radial < 1:
            raise UserError(
                f"data.cutoff {cutoff:g} must be above 0, and data.radial {radial} at least 1"
            )
        for name in targets or ():
            if name not in QUANTITIES:
                hint = suggest_or_list(name, QUANTITIES)
                raise UserError(f"data.targets names '{name}', which QM9 does not have: {hint}")
        self.structure = Structure("mol_id", cutoff, radial)
        self.excluded = find_excluded(root, download)
        super().__init__(
            path=find_table(root, download),
            targets={name: name for name in targets or QUANTITIES},
            tasks=tasks,
            id="mol_id",
            val_fraction=HELD_OUT_SHARE,
            folds=folds,
            fold=fold,
            split_seed=split_seed,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def read(self, path: str) -> pd.DataFrame:
        """Reads the table, in the units of the errors, without uncharacterized molecules."""
        frame = super().read(path)
        for column in ("mol_id", *(column for column, _ in QUANTITIES.values())):
            if column not in frame.columns:
                raise UserError(f"{path}: lacks QM9's column '{column}'")
        for name, (column, factor) in QUANTITIES.items():
            try:
                frame[name] = NumberFormat().numbers(frame[column]) * factor
            except BadValue as error:
                row = number_row(frame, error.row)
                raise UserError(f"{path} row {row}: column '{column}' {error}") from None
        kept = frame[~frame["mol_id"].isin(self.excluded)]
        note = f"left out {len(frame) - len(kept)} molecules, which {UNCHARACTERIZED.name} names"
        if not self.excluded:
            note = f"{UNCHARACTERIZED.name} is not there: molecules that it would name count"
        kept.attrs = {**frame.attrs, "notes": [*frame.attrs.get("notes", []), note]}
        return kept

    def assign_rows(self) -> dict[str, np.ndarray]:
        if self.folds is not None:
            return super().assign_rows()
        count = len(self.main)
        held_out = min(HELD_OUT, int(HELD_OUT_SHARE * count))
        order = np.random.RandomState(self.split_seed).permutation(count)
        side = np.full(count, "train", dtype=SIDE)
        side[order[:held_out]] = "test"
        side[order[held_out : 2 * held_out]] = "val"
        rows, notes = collect_rows(self, side, moved=0)
        self.column_notes += notes
        return rows

    def read_columns(self) -> list[Column]:
        return [self.structure]

    def check_files(self, all_there: bool = True) -> None:
        super().check_files(all_there)
        if self.saved is None or self.is_new:
            return

        # the schema knows the table by its content, and the molecules by their hashes
        before = unpack_hashes(self.saved["hashes"])
        now = hash_rows(self.encode_inputs_of("train"))
        if not np.array_equal(before, now):
            raise UserError(
                f"{find_sdf(self.table_files.paths['train'])}: is not the file that the run began "
                f"with: {describe_difference(before, now)}"
            )

    def files(self) -> list[str]:
        return [*super().files(), find_sdf(self.path)]

    def fingerprint(self) -> dict[str, Any]:
        """Returns the files, with that of the molecules, and the number of rows on each side."""
        structures = fingerprint_file(find_sdf(self.table_files.paths["train"]))
        return {**super().fingerprint(), "structures": structures}


# -- files -----------------------------------------------------------------------------------------
def find_table(root: str, download: bool) -> str:
    """Returns the path of gdb9.sdf.csv, whose archive has gdb9.sdf, too.

    Raises:
        UserError: It is not there, or cannot be fetched.
    """
    for name in ("gdb9.sdf.csv", "gdb9.sdf.csv.gz"):
        if (Path(root) / name).is_file():
            return str(Path(root) / name)
    if not download:
        raise UserError(
            f"{root}: neither gdb9.sdf.csv nor gdb9.sdf.csv.gz is there; get "
            f"{ARCHIVE}, or add --data.download true"
        )
    archive = fetch(ARCHIVE, Path(root) / "gdb9.tar.gz", md5=ARCHIVE_MD5)
    for name in ("gdb9.sdf", "gdb9.sdf.csv"):
        extract(archive, name)
    return str(Path(root) / "gdb9.sdf.csv")


def extract(archive: Path, name: str) -> None:
    """Writes a file of an archive beside it; it appears whole, or not at all.

    Raises:
        UserError: The archive is damaged, or has no such file.
    """
    target = archive.with_name(name)
    try:
        with hold_folder(archive.parent), tarfile.open(archive) as opened:
            # another process may have been faster
            if target.is_file():
                return
            for member in opened:
                content = opened.extractfile(member)
                if Path(member.name).name == name and content is not None:
                    write_atomically(target, partial(copyfileobj, content))
                    return
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}") from None
    raise UserError(f"{archive}: has no {name}")


def find_excluded(root: str, download: bool) -> set[str]:
    """Returns the names of the molecules that failed the authors' test of consistency.

    Raises:
        UserError: uncharacterized.txt is not whole.
    """
    path = Path(root) / UNCHARACTERIZED.name
    if not path.is_file() and download:
        find_public_file(root, UNCHARACTERIZED, UNCHARACTERIZED.url, download)
    if not path.is_file():
        return set()

    # a table with nine lines of heading, and a last line with the number of its rows
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = set()
    for number, line in enumerate(lines[HEADING:-1], HEADING + 1):
        words = line.split()
        if not words or not words[0].isdecimal():
            raise UserError(
                f"{path} line {number}: begins with no number of a molecule: get "
                f"{UNCHARACTERIZED.url} anew"
            )
        found.add(f"gdb_{words[0]}")
    if not found:
        raise UserError(
            f"{path}: has {len(lines)} lines, where molecules stand from line {HEADING + 1} on: "
            f"get {UNCHARACTERIZED.url} anew"
        )
    return found
