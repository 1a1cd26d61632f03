"""Molecules: a table with a column of SMILES, and columns to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from src.data.folds import deal_by_groups, split_by_fold
from src.data.molecules.fingerprints import FEATURES, Fingerprint
from src.data.molecules.molecular_graphs import MolecularGraph, import_features
from src.data.molecules.scaffolds import find_scaffolds, split_by_scaffold
from src.data.molecules.smiles import find_unreadable, import_rdkit
from src.data.tables.columns import Column
from src.data.tables.numbers import BadValue
from src.data.tables.reading import number_row
from src.data.tables.settings import TEST_FRACTION
from src.data.tables.sides import collect_rows, encode_classes_of_tasks
from src.data.tables.splits import keep_rare_classes
from src.data.tables.table import Table
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.1  # of the rows that validate, and of the rows that test
NAMED = 5  # rows that a note on skipped ones names


class Molecules(Table):
    """Molecules as SMILES in a table, with columns to predict, many of whose labels may be missing.

    The SMILES become fingerprints and descriptors, for encoders of vectors, or graphs, for
    MessagePassing. The other columns are no inputs. Needs ``pip install rdkit``, and for graphs
    ``pip install torch_geometric``.

    Args:
        path: A .csv, .tsv or .parquet file, compressed or not.
        targets: Columns to predict, as in Table.
        smiles: Column of the SMILES.
        features: ecfp: fingerprints of 0 and 1; counts: log(1 + n) of how often each neighbourhood
            of atoms is there; descriptors: RDKit's 217, standardised, 7 ms a molecule; graph; or a
            list of the first three.
        radius: Bonds between the middle of a fingerprint's neighbourhood and its rim.
        bits: Length of a fingerprint.
        split: random; or scaffold, which keeps molecules with one skeleton on one side, the largest
            groups in train, as MoleculeNet does. With folds it deals out whole skeletons.
        on_error: refuse a file with a SMILES that RDKit cannot read, or skip such rows.
        tasks: {task: settings}, as in Table.
        missing: Words that mean that a value is missing, besides the usual ones.
        row_weight: Column with the weights of rows, as in Table.
        sensitive: Columns of groups, which model.fairness compares, as in Table.
        id: Column that names the rows in predictions; None for their numbers in the file.
        group: Column of groups that must stay on one side of the split.
        stratify: Columns whose values all sides of a random split have in proportion.
        split_column: Column that says train, val or test.
        val_path: File of validation rows; otherwise they are split off.
        test_path: File of test rows; otherwise they are split off.
        val_fraction: Share of the rows that validates.
        test_fraction: Share of the rows that tests.
        folds: Number of folds; one of them tests.
        fold: The fold that tests, from 0.
        split_seed: Seed of the split.
        schema_path: A run's schema.json, whose columns are read as that run read them.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches; they help where molecules are graphs.
        seed: Seed of the order of training batches.
    """

    column_kinds = (Fingerprint, MolecularGraph)

    def __init__(
        self,
        path: str,
        targets: list[str] | dict[str, str | list[str]] | None = None,
        smiles: str = "smiles",
        features: str | list[str] = "ecfp",
        radius: int = 2,
        bits: int = 2048,
        split: Literal["random", "scaffold"] = "random",
        on_error: Literal["refuse", "skip"] = "refuse",
        tasks: dict[str, Any] | None = None,
        missing: list[str] | None = None,
        row_weight: str | None = None,
        sensitive: list[str] | None = None,
        id: str | None = None,
        group: str | None = None,
        stratify: list[str] | None = None,
        split_column: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = SHARE,
        test_fraction: float = SHARE,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        schema_path: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.smiles = smiles
        self.features = [features] if isinstance(features, str) else list(features)
        self.radius = radius
        self.bits = bits
        self.on_error = on_error
        self.by_scaffold = split == "scaffold"
        check_features(self.features, radius, bits)
        import_rdkit("rdkit.Chem")

        # a share that was not set by hand is none that folds leave without effect
        is_default = folds is not None and test_fraction == SHARE
        test_share = TEST_FRACTION if is_default else test_fraction
        super().__init__(
            path=path,
            targets=targets,
            tasks=tasks,
            missing=missing,
            row_weight=row_weight,
            sensitive=sensitive,
            id=id,
            group=group,
            stratify=stratify,
            split_column=split_column,
            val_path=val_path,
            test_path=test_path,
            val_fraction=val_fraction,
            test_fraction=test_share,
            folds=folds,
            fold=fold,
            split_seed=split_seed,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        others = {"group": group, "stratify": stratify, "split_column": split_column}
        for key, value in others.items():
            if self.by_scaffold and value:
                raise UserError(f"data.split scaffold and data.{key} cannot both say how to split")

    # -- files -------------------------------------------------------------------------------------
    def read(self, path: str) -> pd.DataFrame:
        """Reads a file; rows that are skipped leave gaps in the numbers of the others."""
        frame = super().read(path)
        if self.smiles not in frame.columns:
            raise UserError(
                f"{path}: lacks the column '{self.smiles}', which data.smiles names: "
                f"{suggest_or_list(self.smiles, frame.columns)}"
            )
        return self._skip_unreadable(path, frame) if self.on_error == "skip" else frame

    def _skip_unreadable(self, path: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Leaves out the rows whose SMILES cannot be read, and notes which."""
        wrong = find_unreadable(frame[self.smiles])
        if not wrong:
            return frame
        numbers = [number_row(frame, place) for place in wrong]
        if len(wrong) == len(frame):
            reason = next(iter(wrong.values()))
            raise UserError(
                f"{path} row {numbers[0]}: column '{self.smiles}' {reason}, and no other row of "
                "the file can be read either"
            )

        listed = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
        note = (
            f"{path}: left out {len(wrong)} of {len(frame)} rows, whose SMILES RDKit cannot read: "
            f"{listed}; row {numbers[0]} {next(iter(wrong.values()))}"
        )
        kept = frame.drop(index=frame.index[list(wrong)])
        kept.attrs = {**frame.attrs, "notes": [*frame.attrs.get("notes", []), note]}
        kept.attrs["rows"] = len(frame)

        # commands that open a run show remarks, not notes
        if self.saved is not None:
            self.remarks.append(note)
        return kept

    @property
    def rows_in_file(self) -> int:
        """The number of rows of ``path``, with the ones that were skipped."""
        return int(self.main.attrs.get("rows", len(self.main)))

    # -- the split ---------------------------------------------------------------------------------
    def assign_rows(self) -> dict[str, np.ndarray]:
        """Splits the rows at random or by the scaffolds of the molecules."""
        if not self.by_scaffold:
            return super().assign_rows()
        column = self.main[self.smiles]
        try:
            scaffolds = find_scaffolds(column)
        except BadValue as error:
            row = number_row(self.main, error.row)
            raise UserError(f"{self.path} row {row}: column '{self.smiles}' {error}") from None

        # a side with a file of its own takes no rows of the first one
        val = 0.0 if self.val_path else self.val_fraction
        test = 0.0 if self.test_path else self.test_fraction
        if self.folds is None:
            side = split_by_scaffold(scaffolds, val, test)
        else:
            dealt = deal_by_groups(scaffolds, self.folds, self.split_seed)
            side = split_by_fold(dealt, self.fold, val, self.split_seed, scaffolds)

        # a class that no training row has could never be predicted
        labels = encode_classes_of_tasks(self, side == "train")
        moved = keep_rare_classes(side, labels, scaffolds)
        rows, notes = collect_rows(self, side, int(moved.sum()))
        self.column_notes += notes
        return rows

    # -- inputs ------------------------------------------------------------------------------------
    def read_columns(self) -> list[Column]:
        column = self.main[self.smiles]
        if self.features == ["graph"]:
            return [MolecularGraph(self.smiles)]
        train = column.iloc[self.rows["train"]]
        try:
            return [Fingerprint.fit(train, self.features, self.radius, self.bits)]
        except BadValue as error:
            row = number_row(train.to_frame(), error.row)
            raise UserError(f"{self.path} row {row}: column '{self.smiles}' {error}") from None


def check_features(features: Sequence[str], radius: int, bits: int) -> None:
    """Checks how molecules become inputs, before any file is read.

    Raises:
        UserError: It cannot be, or a package is not installed.
    """
    for feature in features:
        if feature not in FEATURES:
            hint = suggest_or_list(feature, FEATURES)
            raise UserError(f"data.features names '{feature}', which is none: {hint}")
    if not features or len(set(features)) < len(features):
        raise UserError("data.features must name each of its parts once, and at least one")
    if "graph" in features:
        if len(features) > 1:
            others = ", ".join(feature for feature in features if feature != "graph")
            raise UserError(
                f"data.features graph cannot stand beside {others}: an encoder reads graphs or "
                "vectors"
            )
        import_features()
    if radius < 0 or bits < 1:
        raise UserError(f"data.radius {radius} and data.bits {bits} must be at least 0 and 1")
