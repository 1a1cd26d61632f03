"""Model cards, made of run folders alone."""

import json
import shutil

import pytest

from src.deployment.card_markdown import draw_table, escape, format_number
from src.deployment.model_card import hide_folders, write_card
from src.errors import UserError
from src.run import Run
from tests.cli.calling import call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table whose names mean something in Markdown."""
    folder = tmp_path_factory.mktemp("card")
    path = folder / "people.csv"
    lines = [
        f"{i * 7 % 50},{'a|b' if i % 3 else '*c*'},{'no' if i % 2 else 'yes'}" for i in range(120)
    ]
    path.write_text("age,job|title,in_come\n" + "\n".join(lines) + "\n")
    ended = call(
        *("train", "--data", "Table", "--data.path", path, "--data.targets", "{income: in_come}"),
        *("--max_epochs", 1, "--logs", folder / "logs", "--name", "people"),
    )
    assert ended.code in (0, None), ended.err
    (found,) = (folder / "logs" / "people").iterdir()
    return found


@pytest.fixture
def copy(run, tmp_path):
    return Run(shutil.copytree(run, tmp_path / "run"))


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_a_card_says_what_the_run_folder_holds(run):
    card = write_card(Run(run), "MIT licence")
    record = json.loads((run / "run.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert card.startswith("# Model card: people\n\nOne network with 1 task: income.")
    assert "| income | BinaryClassification | no, yes; threshold " in section(card, "Tasks")
    assert r"| job\|title | category | \*c\*, a\|b |" in section(card, "Inputs")
    assert record["data"]["files"]["train"]["sha256"] in section(card, "Data")
    assert "Rows: 84 train, 18 val, 18 test." in section(card, "Data")
    training = section(card, "Training")
    assert f"torch {record['versions']['torch']}" in training
    assert "| seed | 0 |" in training
    assert str(run.parent) not in card
    found, wanted = metrics["validation"], metrics["test"]
    line = f"| AUROC | {found['val/income/auroc']:.4f} | {wanted['test/income/auroc']:.4f} |"
    assert line in section(card, "Results")
    assert section(card, "Licence").strip() == "MIT licence"

    # every row of a table has as many cells as its heading
    for line in card.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_what_nobody_has_measured_is_said(run):
    card = write_card(Run(run))
    assert "No audit by groups has been made" in section(card, "Results by group")
    assert "--groups" in section(card, "Limits")
    assert "Calibration was not measured" in section(card, "Calibration")
    assert "Robustness was not measured" in section(card, "Robustness")
    assert section(card, "Licence").strip().startswith("Not stated.")


def test_audits_become_tables(copy):
    folder = copy.path / "audit"
    folder.mkdir()
    row = {"task": "income", "metric": "accuracy", "groups": {"sex": "Female"}, "n": 12}
    groups = {
        "rows": [{**row, "value": 0.75, "low": 0.5, "high": 0.875}],
        "gaps": [
            {
                **{"task": "income", "metric": "accuracy", "columns": ["sex"], "gap": 0.125},
                **{"ratio": None, "worst": "Female"},
            }
        ],
    }
    rung = {"task": "income", "corruption": "noise", "severity": 1, "score": 0.5}
    robust = {"rows": 18, "scores": {"income": "AUROC"}, "ladder": [rung]}
    label = {"label": "", "rows": 18, "values": {"ECE (15 bins)": 0.25}}
    measure = {"task": "income", "split": "test", "state": "before", "labels": [label]}
    audits = {"groups": groups, "robustness": robust, "calibration": {"measures": [measure]}}
    for name, content in audits.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    card = write_card(copy)
    by_group = section(card, "Results by group")
    assert "| sex Female | 12 | 0.7500 (0.5000 to 0.8750) |" in by_group
    assert "| sex | income | accuracy | Female | 0.1250 | - |" in by_group
    assert "Fewer than 30 rows, so that values say little: sex Female." in by_group
    assert "| income | AUROC | noise | 0.5000 |" in section(card, "Robustness")
    assert "| income | - | test | before | 18 | 0.2500 |" in section(card, "Calibration")
    assert "--groups" not in section(card, "Limits")

    (folder / "groups.json").write_text('{"rows": 3}')
    with pytest.raises(UserError, match=r"groups\.json is damaged"):
        write_card(copy)


def test_a_run_without_weights_or_test_rows(copy):
    metrics = json.loads(copy.metrics.read_text())
    copy.metrics.write_text(json.dumps({"validation": metrics["validation"]}))
    assert "The run was not tested" in section(write_card(copy), "Results")
    shutil.rmtree(copy.path / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint"):
        write_card(copy)


def test_markdown():
    assert draw_table(["a", "b"], [["x|y", "1"]], 1) == [
        *("| a | b |", "| :-- | --: |", r"| x\|y | 1 |")
    ]
    assert escape("a\n*b*") == r"a \*b\*"
    assert [format_number(v) for v in (None, float("nan"), 0.5, 12345.678)] == [
        *("-", "-", "0.5000", "12346")
    ]
    command = "python -m src.train --data.root /secret/place/adult --logs logs/x --out '/a/b c'"
    assert hide_folders(command) == (
        "python -m src.train --data.root .../adult --logs logs/x --out '.../b c'"
    )
