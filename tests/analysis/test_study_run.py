"""A study from its rows to its record, on an executor without processes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.analysis.design import Maker
from src.analysis.record import StudyRecord, read_study
from src.analysis.scheduler import Scheduler
from src.analysis.settings import Settings, to_flags
from src.analysis.study import Study, Variant, parse_study
from src.analysis.study_plan import walk
from src.analysis.study_run import StudyRun
from src.analysis.trials import Outcome, Work, look_at
from src.analysis.tuning import GridTuner, Tuner, draw_weights
from tests.analysis.fake_executor import FakeExecutor, Silent, read_flags

MONITORS = {"a": ("r2", 1)}


def make_study(**content: Any) -> Study:
    given = {"baselines": [], "seeds": 2, "variants": {"one": {"x": 1}}} | content
    return parse_study(given, Path("mine.yaml"), {})


def make_maker(study: Study) -> Maker:
    def trial(
        variant: Variant, settings: Settings, seed: int, fold: int | None, tests: bool, label: str
    ) -> Work:
        words = [*to_flags(variant.settings | settings), "--seed_everything", str(seed)]
        if fold is not None:
            words += ["--data.fold", str(fold)]
        key = "-".join(words).replace("--", "").replace("/", "")
        module = "src.reference" if variant.reference else "src.train"
        return Work(key, module, tuple(words), tests, label)

    def ensemble(members: Mapping[str, Outcome], label: str) -> Work:
        runs = ",".join(str(outcome.run) for outcome in members.values())
        return Work("ensemble-" + "+".join(members), "src.ensemble", ("--run", runs), True, label)

    def tuner(row: str, fold: int | None) -> Tuner:
        assert study.tuning is not None
        return GridTuner(study.tuning.space)

    return Maker(trial, ensemble, tuner, MONITORS)


def make_record(study: Study) -> StudyRecord:
    return {
        "name": study.name,
        "command": "compare",
        "started": "now",
        "finished": False,
        "tasks": {"a": {"monitor": "r2", "metrics": {"r2": 1}}},
        "seeds": study.seeds,
        "folds": study.folds,
        "tuning": None,
        "baseline": study.baseline,
        "single_task": study.single_task,
        "rows": [],
        "trials": {},
    }


def carry_out(
    tmp_path: Path, study: Study, executor: FakeExecutor
) -> tuple[StudyRecord, list[tuple[str, str]]]:
    folder = tmp_path / study.name
    folder.mkdir(exist_ok=True)
    run = StudyRun(study, make_maker(study), make_record(study), tmp_path, folder)
    display = Silent()
    Scheduler(tmp_path, executor, run, display).run()
    run.end()
    assert executor.closed
    return read_study(folder), display.told


def score_by(**scores: float) -> Any:
    """A score that depends on the flag x."""
    return lambda command: scores.get("x" + read_flags(command).get("x", ""), 0.0)


def test_each_seed_is_a_trial_and_its_test_counts(tmp_path: Path) -> None:
    executor = FakeExecutor(score_by(x1=0.5))
    record, _ = carry_out(tmp_path, make_study(seeds=3), executor)
    assert record["finished"]
    replicates = record["rows"][0]["replicates"]
    assert [replicate["seed"] for replicate in replicates] == [0, 1, 2]
    assert len(executor.commands) == 3
    assert executor.most == 2  # side by side, and no more
    for replicate in replicates:
        trial = record["trials"][replicate["trials"]["a"]]
        assert trial["status"] == "finished"
        assert trial["seconds"] == 1.5
        assert trial["run"] is not None
        metrics = json.loads((tmp_path / trial["run"] / "metrics.json").read_text())
        assert metrics["test"]["test/a/r2"] == pytest.approx(0.4)


def test_run_again_nothing_trains_and_a_new_seed_trains_alone(tmp_path: Path) -> None:
    carry_out(tmp_path, make_study(seeds=2), FakeExecutor(score_by(x1=0.5)))
    again = FakeExecutor(score_by(x1=0.9))
    record, told = carry_out(tmp_path, make_study(seeds=2), again)
    assert again.commands == []
    assert told == []
    assert len(record["rows"][0]["replicates"]) == 2

    more = FakeExecutor(score_by(x1=0.5))
    variants = {"one": {"x": 1}, "two": {"x": 2}}
    carry_out(tmp_path, make_study(seeds=3, variants=variants), more)
    trained = [(read_flags(c)["x"], read_flags(c)["seed_everything"]) for c in more.commands]
    assert sorted(trained) == [("1", "2"), ("2", "0"), ("2", "1"), ("2", "2")]


def test_two_studies_of_one_folder_share_a_trial(tmp_path: Path) -> None:
    carry_out(tmp_path, make_study(), FakeExecutor(score_by()))
    other = FakeExecutor(score_by())
    carry_out(tmp_path, make_study(name="other", variants={"uno": {"x": 1}}), other)
    assert other.commands == []


def test_tuning_reads_validation_rows_alone_and_the_chosen_is_tested_once(tmp_path: Path) -> None:
    study = make_study(tuning={"grid": {"x": [1, 2, 3]}}, variants={"one": {"y": 1}})
    executor = FakeExecutor(score_by(x1=0.1, x2=0.9, x3=0.5))
    record, _ = carry_out(tmp_path, study, executor)
    row = record["rows"][0]
    assert [one["score"] for one in row["candidates"]] == [0.1, 0.9, 0.5]
    assert [one["chosen"] for one in row["candidates"]] == [[], ["a"], []]

    # the candidates train with the first seed, and leave the test out
    first = [read_flags(command) for command in executor.commands[:3]]
    assert all("no_test" in flags and flags["seed_everything"] == "0" for flags in first)
    # the chosen one has trained already: its run goes on to the test, and trains no more
    resumed = [read_flags(c) for c in executor.commands if "--resume" in c]
    assert [flags["no_test"] for flags in resumed] == ["false"]
    fresh = [read_flags(c) for c in executor.commands[3:] if "--resume" not in c]
    assert [(flags["x"], flags["seed_everything"]) for flags in fresh] == [("2", "1")]
    assert all("no_test" not in flags for flags in fresh)
    tested = [key for key in record["trials"] if look_at(tmp_path, key).tested]
    assert sorted(tested) == sorted(one["trials"]["a"] for one in row["replicates"])


def test_a_trial_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    variants = {"bad": {"x": 1}, "good": {"x": 2}}

    def score(command: list[str]) -> float | None:
        return None if read_flags(command)["x"] == "1" else 0.5

    record, told = carry_out(tmp_path, make_study(variants=variants), FakeExecutor(score))
    assert record["finished"]
    by_row = {row["name"]: row for row in record["rows"]}
    for replicate in by_row["bad"]["replicates"]:
        trial = record["trials"][replicate["trials"]["a"]]
        assert (trial["status"], trial["error"]) == ("failed", "it was made to fail")
    for replicate in by_row["good"]["replicates"]:
        assert record["trials"][replicate["trials"]["a"]]["status"] == "finished"
    assert sorted(status for _, status in told) == ["failed", "failed", "finished", "finished"]


def test_a_row_whose_candidates_all_fail_has_no_replicates(tmp_path: Path) -> None:
    study = make_study(tuning={"grid": {"x": [1, 2]}}, variants={"one": {"y": 1}})
    record, _ = carry_out(tmp_path, study, FakeExecutor(lambda command: None))
    row = record["rows"][0]
    assert [one["score"] for one in row["candidates"]] == [None, None]
    assert row["replicates"] == []


def test_each_fold_is_tuned_on_its_own(tmp_path: Path) -> None:
    study = make_study(tuning={"grid": {"x": [1, 2]}}, variants={"one": {"y": 1}}, folds=2, seeds=1)

    def score(command: list[str]) -> float:
        flags = read_flags(command)
        return 1.0 if flags["x"] == str(int(flags["data.fold"]) + 1) else 0.0

    record, _ = carry_out(tmp_path, study, FakeExecutor(score))
    row = record["rows"][0]
    chosen = [(one["fold"], one["settings"]["x"]) for one in row["candidates"] if one["chosen"]]
    assert chosen == [(0, "1"), (1, "2")]
    assert [(one["seed"], one["fold"]) for one in row["replicates"]] == [(0, 0), (0, 1)]


def test_an_ensemble_has_members_of_its_own_for_each_replicate(tmp_path: Path) -> None:
    study = make_study(variants={"five": {"x": 1, "ensemble": 3}})
    executor = FakeExecutor(score_by(x1=0.5))
    record, _ = carry_out(tmp_path, study, executor)
    members = [c for c in executor.commands if c[0] == "src.train"]
    seeds = sorted(int(read_flags(command)["seed_everything"]) for command in members)
    assert seeds == [0, 1, 2, 3, 4, 5]
    assert all("no_test" in read_flags(command) for command in members)
    averages = [c for c in executor.commands if c[0] == "src.ensemble"]
    assert [len(read_flags(command)["run"].split(",")) for command in averages] == [3, 3]
    for replicate in record["rows"][0]["replicates"]:
        assert len(replicate["members"]) == 3
        assert record["trials"][replicate["trials"]["a"]]["command"][0] == "src.ensemble"


def test_tuned_weights_begin_with_the_plain_sum_at_its_best_rate(tmp_path: Path) -> None:
    study = make_study(
        baselines=["StaticWeights", "tuned weights"],
        variants={},
        weights=4,
        tuning={"grid": {"x": [1, 2]}},
    )

    def score(command: list[str]) -> float:
        flags = read_flags(command)
        return float(flags["x"]) + ("model.weights" in flags) * 0.5

    record, _ = carry_out(tmp_path, study, FakeExecutor(score))
    plain, tuned = record["rows"]
    with_weights = [c for c in tuned["candidates"] if "model.weights" in c["settings"]]
    assert len(with_weights) == 3
    assert all(one["settings"]["x"] == "2" for one in with_weights)
    # the plain sum is trained once for both rows
    assert {one["trial"] for one in plain["candidates"]} <= {
        one["trial"] for one in tuned["candidates"]
    }
    assert len([one for one in tuned["candidates"] if one["chosen"]]) == 1
    assert "model.weights" in next(c for c in tuned["candidates"] if c["chosen"])["settings"]


def test_weights_are_drawn_from_the_simplex() -> None:
    vectors = draw_weights(["a", "b", "c"], 200)
    for weights in vectors:
        assert sum(weights.values()) == pytest.approx(3, abs=1e-3)
        assert min(weights.values()) > 0
    mean = sum(weights["a"] for weights in vectors) / len(vectors)
    # 3 Beta(1, 2) has a standard deviation of 0.71
    assert mean == pytest.approx(1, abs=4 * 0.71 / len(vectors) ** 0.5)
    assert draw_weights(["a", "b", "c"], 20) == vectors[:20]


def test_a_plan_counts_what_is_left_and_trains_nothing(tmp_path: Path) -> None:
    study = make_study(seeds=2)
    carry_out(tmp_path, study, FakeExecutor(score_by()))
    larger = make_study(seeds=5, variants={"one": {"x": 1}, "two": {"x": 2}})
    run = StudyRun(larger, make_maker(larger), make_record(larger), tmp_path)
    plan = walk(run, tmp_path, MONITORS, 0)
    assert plan.total == 10
    assert len(plan.left) == 8
    assert not (tmp_path / "trials" / "x-2-seed_everything-0").exists()
