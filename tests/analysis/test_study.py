"""The file of a study: what it says, and mistakes in it, a line each."""

from pathlib import Path
from typing import Any

import pytest

from src.analysis.settings import spell, to_flags
from src.analysis.study import BASELINES, Study, parse_study, read_file
from src.errors import UserError


def parse(tmp_path: Path, text: str, **extra: Any) -> Study:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return parse_study(read_file(path), path, extra)


def test_an_empty_study_has_all_baselines_and_five_seeds(tmp_path: Path) -> None:
    study = parse(tmp_path, "{}")
    assert [variant.name for variant in study.variants] == list(BASELINES)
    assert study.seeds == [0, 1, 2, 3, 4]
    assert study.name == "mine"
    assert study.baseline == "tuned weights"
    assert study.single_task == "single-task"
    assert study.tuning is None
    assert study.folds is None


def test_settings_are_flags_with_and_without_sections(tmp_path: Path) -> None:
    study = parse(
        tmp_path,
        """
        base: [a.yaml, ../b.yaml]
        settings: {budget.steps: 5, model: {encoder.width: 128}, batch_size: 32}
        variants:
          one: {model: {balancer: PCGrad, sharing: {class_path: MMoE, init_args: {experts: 4}}}}
          two: {data.targets: [x, y], lr: 1e-3}
        baselines: []
        seeds: [3, 1]
        """,
    )
    assert study.base == [str(tmp_path / "a.yaml"), str((tmp_path / "../b.yaml").resolve())]
    assert to_flags(study.settings) == [
        *("--budget.steps", "5", "--model.encoder.width", "128"),
        *("--batch_size", "32"),
    ]
    one, two = study.variants
    assert to_flags(one.settings) == [
        *("--model.balancer", "PCGrad"),
        *("--model.sharing", '{"class_path": "MMoE", "init_args": {"experts": 4}}'),
    ]
    # a number goes on as it was written
    assert to_flags(two.settings) == ["--data.targets", '["x", "y"]', "--lr", "1e-3"]
    assert study.seeds == [3, 1]
    assert study.baseline is None


def test_flags_of_the_command_line_are_over_the_file(tmp_path: Path) -> None:
    study = parse(tmp_path, "settings: {lr: 0.1, batch_size: 8}", lr="0.2")
    assert study.settings["lr"] == "0.2"
    assert spell(study.settings["batch_size"]) == "8"


def test_a_grid_is_a_row_for_each_combination(tmp_path: Path) -> None:
    study = parse(
        tmp_path,
        """
        baselines: []
        variants:
          MMoE:
            model.sharing: MMoE
            grid: {model.sharing.experts: [2, 4], lr: [0.1, 0.2]}
        """,
    )
    names = [variant.name for variant in study.variants]
    assert names == [
        *("MMoE experts=2 lr=0.1", "MMoE experts=2 lr=0.2"),
        *("MMoE experts=4 lr=0.1", "MMoE experts=4 lr=0.2"),
    ]
    last = study.variants[-1].settings
    assert to_flags(last)[-4:] == ["--model.sharing.experts", "4", "--lr", "0.2"]


def test_references_and_ensembles_are_rows(tmp_path: Path) -> None:
    study = parse(
        tmp_path,
        """
        baselines: []
        variants:
          boosting: {reference: boosting}
          five: {ensemble: 5, model.balancer: UPGrad}
        """,
    )
    boosting, five = study.variants
    assert (boosting.role, boosting.reference) == ("reference", "boosting")
    assert (five.role, five.ensemble) == ("method", 5)


def test_how_rows_are_tuned(tmp_path: Path) -> None:
    grid = parse(tmp_path, "tuning: {grid: {lr: [1, 2, 3], model.optimizer.weight_decay: [0, 1]}}")
    assert grid.tuning is not None
    assert (grid.tuning.method, grid.tuning.trials) == ("grid", 6)
    space = parse(tmp_path, "tuning: {trials: 7, space: {lr: {low: 1e-4, high: 1e-2, log: true}}}")
    assert space.tuning is not None
    assert (space.tuning.method, space.tuning.trials) == ("tpe", 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds: 0", "seeds is 0; it must be at least 1"),
        ("seeds: []", "seeds is an empty list"),
        ("seeds: [1, 1]", "seeds has 1 twice"),
        ("seeds: true", "seeds is true; it must be a whole number"),
        ("seeds: 1.5", "seeds is 1.5; it must be a whole number"),
        ("seeds: 1", "one seed gives no interval and no test: use seeds: 2 or more"),
        ("sedes: 3", "sedes is no key: did you mean 'seeds'?"),
        ("folds: 1", "folds is 1; it must be at least 2"),
        ("variants: [a]", 'variants is ["a"], where names with settings belong'),
        ("variants: {a: PCGrad}", "variants.a is 'PCGrad', where settings belong"),
        ("variants: {LogSum: {lr: 1}}", "two rows are named 'LogSum'"),
        ("variants: {a: {seed: 3}}", "variants.a: seed is the study's own: see seeds"),
        ("settings: {no_test: true}", "settings: no_test belongs to one call of train"),
        ("variants: {a: {reference: trees}}", "variants.a.reference is 'trees'"),
        ("variants: {a: {ensemble: 0}}", "variants.a.ensemble is 0; it must be at least 1"),
        ("variants: {a: {reference: linear, ensemble: 2}}", "a reference has no seeds"),
        ("variants: {a: {grid: {lr: 3}}}", "variants.a.grid.lr is 3, where a list"),
        ("baselines: [LogSumm]", "'LogSumm', which is none: did you mean 'LogSum'?"),
        ("baselines: all", "baselines is 'all'; it must be default or a list"),
        ("baselines: []", "neither variants nor baselines"),
        ("tuning: {lr: [1]}", 'tuning is {"lr": [1]}; it must have a grid'),
        ("tuning: {grid: {lr: [1]}, trials: 3}", "tuning.trials cannot go with tuning.grid"),
        ("tuning: {space: {lr: [1]}}", "tuning.trials is 0; it must be at least 1"),
        ("name: a/b", "name is 'a/b'; it must be the name of a folder"),
        ("name: trials", "name is 'trials', the folder of all trials"),
        ("base: 3", "base is 3, where a file or a list of them belongs"),
        ("weights: 0", "weights is 0; it must be at least 1"),
        ("intervals: maybe", "intervals is 'maybe'; it must be true or false"),
        ("a: [", "line 1: not valid YAML"),
        ("- a", "a mapping of keys to values is expected"),
    ],
)
def test_a_mistake_is_a_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(tmp_path, text)
    assert words in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_seed_is_enough_where_nobody_asks_for_intervals(tmp_path: Path) -> None:
    assert parse(tmp_path, "{seeds: 1, intervals: false}").seeds == [0]
    assert parse(tmp_path, "{seeds: 1, folds: 5}").folds == 5
