"""The census income data of UCI as four tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.data.download import PublicFile, find_public_file
from src.data.tables.file_format import MISSING_WORDS
from src.data.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]
LEAKING = [
    "marital-status",
    "relationship",
    "education",
    "education-num",
    "hours-per-week",
    "income",
    "fnlwgt",
]
SOURCE = "https://archive.ics.uci.edu/dataset/2/adult"
FILES = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
ROWS = PublicFile(
    "adult.data",
    f"{FILES}adult.data",
    sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
)
TEST_ROWS = PublicFile(
    "adult.test",
    f"{FILES}adult.test",
    sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
)


class Adult(Table):
    """Adult (Becker and Kohavi 1996, doi 10.24432/C5XW20), with its official test file.

    The tasks are ``income`` (above 50K), ``never-married``, ``college`` (education-num 13 or more)
    and ``hours`` per week. The columns that tell these labels are no inputs, so that the scores
    cannot be compared with those of the usual income task. The files come from
    https://archive.ics.uci.edu/dataset/2/adult.

    Args:
        root: Folder with adult.data and adult.test, gzipped or not.
        download: Whether files that are not there are fetched from UCI.
        val_fraction: Share of adult.data that validates.
        split_seed: Seed of that split.
        folds: Number of folds of adult.data; one fold tests, and adult.test is left out.
        fold: The fold that tests, from 0.
        tasks: {task: settings}, as in Table.
        inputs: Columns to learn from; None for all that do not leak.
        sensitive: Columns of people's groups, such as [sex], which model.fairness compares.
        schema_path: A run's schema.json.
        batch_size: Rows per step over all devices together.
        eval_batch_size: Rows per evaluation step over all devices.
        num_workers: Processes that prepare batches.
        seed: Seed of the order of training batches.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        val_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        tasks: dict[str, Any] | None = None,
        inputs: list[str] | None = None,
        sensitive: list[str] | None = None,
        schema_path: str | None = None,
        batch_size: int = 256,
        eval_batch_size: int = 4096,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        path = find_public_file(root, ROWS, SOURCE, download)
        test_path = None
        if folds is None:
            test_path = find_public_file(root, TEST_ROWS, SOURCE, download)
        super().__init__(
            path=path,
            test_path=test_path,
            targets={name: name for name in ("income", "never-married", "college", "hours")},
            tasks=tasks,
            inputs=inputs,
            sensitive=sensitive,
            drop=LEAKING,
            # nearly all amounts are 0, and the others are about a hundred different ones
            categorical=["capital-gain", "capital-loss"],
            val_fraction=val_fraction,
            split_seed=split_seed,
            folds=folds,
            fold=fold,
            schema_path=schema_path,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def read(self, path: str) -> pd.DataFrame:
        """Reads a file in UCI's form, which has no header and '?' for missing values.

        In the test file the first line is no row, and labels end in a dot.
        """
        import pandas as pd

        frame = pd.read_csv(
            path,
            header=None,
            names=COLUMNS,
            skiprows=1 if "adult.test" in Path(path).name else 0,
            dtype="str",
            na_values=list(MISSING_WORDS),
            keep_default_na=False,
            skipinitialspace=True,
        )
        frame["income"] = frame["income"].str.rstrip(".")
        frame["never-married"] = (frame["marital-status"] == "Never-married").astype("Int64")
        frame["college"] = (frame["education-num"].astype(int) >= 13).astype("Int64")
        frame["hours"] = frame["hours-per-week"].astype(float)
        return frame
