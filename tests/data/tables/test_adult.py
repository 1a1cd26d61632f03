import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from src.data import Adult
from src.data.tables.adult import COLUMNS, LEAKING
from src.tasks import BinaryClassification, Regression

REAL = Path(os.environ.get("MTL_DATA", "nowhere")) / "adult"


def line(i, dot=""):
    """One row in UCI's form: a number of school years that says college, '?' in every fifth job."""
    years, hours = 9 + i % 6, 20 + i % 30
    job = "?" if i % 5 == 0 else ["Private", "State-gov"][i % 2]
    state = ["Never-married", "Divorced"][i % 3 == 0]
    income = ">50K" if i % 4 == 0 else "<=50K"
    gain = 7688 if i % 10 == 1 else 0
    return (
        f"{20 + i % 40}, {job}, {1000 + i}, School-{years}, {years}, {state}, "
        f"Sales, Husband, White, Male, {gain}, 0, {hours}, "
        f"United-States, {income}{dot}"
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "adult.data").write_text("\n".join(map(line, range(200))) + "\n\n")
    test = "|1x3 Cross validator\n" + "\n".join(line(i, ".") for i in range(60)) + "\n\n"
    (tmp_path / "adult.test.gz").write_bytes(gzip.compress(test.encode()))
    return str(tmp_path)


def test_tasks_and_rows(root):
    data = Adult(root)
    assert {name: type(task) for name, task in data.tasks.items()} == {
        "income": BinaryClassification,
        "never-married": BinaryClassification,
        "college": BinaryClassification,
        "hours": Regression,
    }
    assert data.tasks["income"].classes == ("<=50K", ">50K")
    assert {name: len(data.split(name)) for name in ("train", "val", "test")} == {
        "train": 170,
        "val": 30,
        "test": 60,
    }


def test_folds_leave_the_test_file_out(root):
    tables = [Adult(root, folds=3, fold=fold) for fold in range(3)]
    tested = np.concatenate([table.rows["test"] for table in tables])
    assert sorted(tested) == list(range(200))
    assert all(len(table.split("test")) == len(table.rows["test"]) for table in tables)


def test_labels_of_the_test_file(root):
    data = Adult(root)
    targets = data.split("test").targets
    assert targets["income"].tolist() == [float(i % 4 == 0) for i in range(60)]
    assert targets["never-married"].tolist() == [float(i % 3 != 0) for i in range(60)]
    assert targets["college"].tolist() == [float(9 + i % 6 >= 13) for i in range(60)]
    hours = targets["hours"].numpy() * data.tasks["hours"].std[0] + data.tasks["hours"].mean[0]
    np.testing.assert_allclose(hours, [20 + i % 30 for i in range(60)], rtol=1e-5)


def test_columns_that_give_labels_away_are_no_inputs(root):
    data = Adult(root)
    names = [c.column for c in data.columns]
    assert names == ["age", "workclass", "capital-gain"]  # the others never change here
    assert not set(names) & {*LEAKING, *data.targets}
    job = data.columns[1]
    assert job.vocabulary == ("Private", "State-gov", None)  # '?' is missing
    assert data.columns[2].vocabulary == ("0", "7688")


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(ValueError, match=r"neither adult.data nor adult.data.gz is there"):
        Adult(str(tmp_path))


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the Adult data are not here")
def test_the_real_files():
    data = Adult(str(REAL))
    sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
    assert sizes["test"] == 16_281
    assert sizes["train"] + sizes["val"] == 32_561
    assert sizes["val"] == pytest.approx(0.15 * 32_561, abs=5)
    targets = data.split("test").targets
    assert targets["income"].mean().item() == pytest.approx(
        3846 / 16_281
    )  # as adult.names says: 23.62 %
    assert not any(target.isnan().any() for target in targets.values())
    assert len(COLUMNS) == 15
    assert data.input_shape.dense == (1,)
    assert len(data.columns) == 8
