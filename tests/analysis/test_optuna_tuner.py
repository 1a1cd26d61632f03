"""A search proposes the same settings for the same scores, and goes on after an interruption."""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.analysis.optuna_tuner import Candidate, OptunaTuner, name
from src.analysis.record import Row
from src.analysis.scheduler import Scheduler
from src.analysis.settings import Settings
from src.analysis.space import read_space
from src.analysis.study_run import StudyRun
from src.errors import UserError
from tests.analysis.fake_executor import FakeExecutor, Silent, read_flags
from tests.analysis.test_study_run import make_maker, make_record, make_study

pytest.importorskip("optuna")

SPACE = read_space(
    {
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "width": {"low": 4, "high": 64, "integer": True},
        "balancer": ["A", "B"],
    }
)
SAMPLERS = ("tpe", "random", "qmc")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def score(settings: Settings) -> float:
    """The best is lr 0.01, width 20, balancer A: 0."""
    return (
        -((math.log10(settings["lr"]) + 2) ** 2)
        - (settings["balancer"] == "B")
        - abs(settings["width"] - 20) / 50
    )


def search(tuner: OptunaTuner, most: int = 1000) -> list[Settings]:
    """Tries candidates until the end, or until as many were told; returns the proposed ones."""
    seen: list[Settings] = []
    while not tuner.done:
        batch = []
        while (settings := tuner.ask()) is not None:
            batch.append(settings)
        assert batch
        seen += batch
        for settings in batch:
            if most == 0:
                return seen
            most -= 1
            tuner.tell(settings, score(settings))
    return seen


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interruption_changes_nothing(sampler: str, tmp_path: Path) -> None:
    whole = search(OptunaTuner(SPACE, 12, tmp_path / "whole", sampler))
    assert len({name(settings) for settings in whole}) == 12

    for told in (3, 11):
        search(OptunaTuner(SPACE, 12, tmp_path / "cut", sampler), most=told)
    again = OptunaTuner(SPACE, 12, tmp_path / "cut", sampler)
    assert search(again) == whole
    assert [candidate.scores for candidate in again.list_candidates()] == [
        (score(settings),) for settings in whole
    ]
    assert again.list_best() == [max(whole, key=score)]

    other = search(OptunaTuner(SPACE, 12, tmp_path / "other", sampler, seed=1))
    assert other[0] != whole[0]


def test_a_resumed_search_asks_first_for_scores_that_it_lacks(tmp_path: Path) -> None:
    first = OptunaTuner(SPACE, 8, tmp_path / "log", ahead=2)
    asked = [settings for _ in range(3) if (settings := first.ask())]
    first.tell(asked[1], 0.5)
    first.tell(asked[2], 0.25, pruned=True)

    resumed = OptunaTuner(SPACE, 8, tmp_path / "log", ahead=2, replays=False)
    assert resumed.ask() == asked[0]
    assert resumed.ask() not in asked
    assert [candidate.state for candidate in resumed.list_candidates()] == [
        *("running", "finished", "pruned", "running")
    ]


def test_scores_guide_the_search(tmp_path: Path) -> None:
    """Of 40 candidates, the later ones are better than the first ten, which are drawn at random."""
    seen = search(OptunaTuner(SPACE, 40, tmp_path / "log"))
    first = sum(map(score, seen[:10])) / 10
    last = sum(map(score, seen[-10:])) / 10
    assert last > first + 0.5
    assert max(map(score, seen)) > -0.1


def test_only_so_many_await_their_scores(tmp_path: Path) -> None:
    """The first ten do not depend on scores; the eleventh waits for all of them but one."""
    tuner = OptunaTuner(SPACE, 13, tmp_path / "log", ahead=2)
    asked = []
    while (settings := tuner.ask()) is not None:
        asked.append(settings)
    assert len(asked) == 10
    for settings in asked[:8]:
        tuner.tell(settings, 0.0)
        assert tuner.ask() is None
    tuner.tell(asked[8], 0.0)
    assert tuner.ask() is not None
    assert tuner.ask() is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_point_is_proposed_once(sampler: str, tmp_path: Path) -> None:
    space = read_space({"a": [1, 2, 3], "b": {"low": 1, "high": 3, "integer": True}})
    tuner = OptunaTuner(space, 100, tmp_path / "log", sampler)
    seen = []
    while (settings := tuner.ask()) is not None:
        seen.append(settings)
        tuner.tell(settings, settings["a"] + settings["b"])
    assert tuner.done
    assert sorted((one["a"], one["b"]) for one in seen) == [
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3)
    ]
    assert tuner.list_best() == [{"a": 3, "b": 3}]


def test_a_failed_candidate_is_none_of_the_best(tmp_path: Path) -> None:
    tuner = OptunaTuner(SPACE, 3, tmp_path / "log")
    for result in (None, math.nan, 0.1):
        settings = tuner.ask()
        assert settings is not None
        tuner.tell(settings, result)
    assert tuner.done
    assert [one.state for one in tuner.list_candidates()] == ["failed", "failed", "finished"]
    assert tuner.list_best() == [settings]


def test_more_trials_go_on(tmp_path: Path) -> None:
    few = search(OptunaTuner(SPACE, 4, tmp_path / "log"))
    more = search(OptunaTuner(SPACE, 12, tmp_path / "log"))
    assert more[:4] == few
    assert more == search(OptunaTuner(SPACE, 12, tmp_path / "whole"))
    # fewer once more are the first of them
    assert search(OptunaTuner(SPACE, 3, tmp_path / "log")) == few[:3]


def test_a_pareto_front(tmp_path: Path) -> None:
    space = read_space({"a": [0, 1, 2, 3], "b": [0, 1]})
    tuner = OptunaTuner(space, 8, tmp_path / "log", objectives=2)
    while (settings := tuner.ask()) is not None:
        tuner.tell(settings, [settings["a"], -settings["a"] - settings["b"]])
    # b only harms the second objective
    assert sorted(one["a"] for one in tuner.list_best()) == [0, 1, 2, 3]
    assert {one["b"] for one in tuner.list_best()} == {0}
    first = tuner.list_candidates()[0]
    a, b = first.settings["a"], first.settings["b"]
    assert first == Candidate({"a": a, "b": b}, "finished", (float(a), float(-a - b)))


def test_a_hopeless_candidate_is_pruned(tmp_path: Path) -> None:
    """The median of five after validation 3 is 0.3; earlier ones and better ones go on."""
    tuner = OptunaTuner(SPACE, 9, tmp_path / "log", prune_after=3)
    curves = [[0.0, 0.0, level, 1.0] for level in (0.1, 0.2, 0.3, 0.4, 0.5)]
    for curve in curves:
        settings = tuner.ask()
        assert settings is not None
        for length in range(1, 5):
            assert not tuner.must_prune(settings, curve[:length])
        tuner.tell(settings, 1.0)

    better = tuner.ask()
    assert better is not None
    assert not tuner.must_prune(better, [0.0, 0.0, 0.31])
    worse = tuner.ask()
    assert worse is not None
    assert not tuner.must_prune(worse, [0.0, None])
    # the same file is read once more, and a validation is new in it
    assert not tuner.must_prune(worse, [0.0, None])
    assert tuner.must_prune(worse, [0.0, None, 0.29])
    tuner.tell(worse, None, pruned=True)
    assert not tuner.must_prune(worse, [0.0, None, 0.29, 0.0])
    assert tuner.list_candidates()[-1].state == "pruned"


def test_no_candidate_is_pruned_unless_asked(tmp_path: Path) -> None:
    tuner = OptunaTuner(SPACE, 9, tmp_path / "log")
    for level in (0.9, 0.9, 0.9, 0.9, 0.9, 0.0):
        settings = tuner.ask()
        assert settings is not None
        assert not tuner.must_prune(settings, [level])
        tuner.tell(settings, level)


# -- the file --------------------------------------------------------------------------------------
def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = search(OptunaTuner(SPACE, 4, tmp_path / "whole"))
    search(OptunaTuner(SPACE, 4, path), most=2)
    with open(path, "ab") as file:
        file.write(b'{"op_code":5,"worker')
    assert search(OptunaTuner(SPACE, 4, path)) == whole


@pytest.mark.parametrize("content", [b"lr,width\n1,2\n", b"\x00\x01\n", b'{"a": 1}\n', b"[]\n"])
def test_a_file_of_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(UserError, match="log is damaged, or is no record of a search") as error:
        OptunaTuner(SPACE, 4, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"space": read_space({"lr": [0.1, 0.2]})}, "another space: use another name"),
        ({"seed": 1, "sampler": "qmc"}, "another sampler and seed: use"),
        ({"objectives": 2}, "objectives"),
    ],
)
def test_another_search(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    same: dict[str, Any] = {"space": SPACE, "trials": 4, "storage": tmp_path / "log"}
    OptunaTuner(**same)
    with pytest.raises(UserError, match=says):
        OptunaTuner(**same | changed)


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no sampler 'tep'; did you mean 'tpe'"):
        OptunaTuner(SPACE, 4, tmp_path / "log", "tep")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="needs Optuna: pip install optuna"):
        OptunaTuner(SPACE, 4, tmp_path / "log")


def test_a_study_is_tuned_by_it(tmp_path: Path) -> None:
    """Each candidate is trained once, and the best is repeated; a second call trains nothing."""
    study = make_study(tuning={"space": {"lr": [0.1]}, "trials": 11})

    def find_score(command: list[str]) -> float:
        flags = read_flags(command)
        return score({**flags, "lr": float(flags["lr"]), "width": float(flags["width"])})

    def carry_out() -> tuple[int, Row]:
        def tuner(row: str, fold: int | None) -> OptunaTuner:
            return OptunaTuner(SPACE, 11, tmp_path / f"{row}.log")

        executor = FakeExecutor(find_score)
        make = replace(make_maker(study), tuner=tuner)
        run = StudyRun(study, make, make_record(study), tmp_path)
        Scheduler(tmp_path, executor, run, Silent()).run()
        return len(executor.commands), run.record["rows"][0]

    # the first seed of the best was a candidate already, and is tested; the second is new
    trained, row = carry_out()
    assert trained == 11 + 2
    tried = row["candidates"]
    scores = [one["score"] for one in tried if one["score"] is not None]
    assert len(scores) == 11
    assert [one["score"] for one in tried if one["chosen"]] == [max(scores)]
    assert carry_out() == (0, row)
