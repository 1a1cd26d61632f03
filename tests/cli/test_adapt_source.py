"""What adapt takes of a run's settings, and how ANIL's inner loop runs after meta-learning."""

from pathlib import Path

import pytest
import torch

from src.cli.adapt_call import read_call
from src.cli.adapt_source import (
    describe_inner_loop,
    find_inner_loop,
    find_methods,
    find_targets,
)
from src.errors import UserError
from src.files.yaml12 import dump
from src.models.few_shot.anil import INNER_STEPS
from src.models.heads import name_heads
from src.models.transfer.report import PartReport
from src.models.transfer.source import Source
from src.run import Run
from src.tasks import Classification

HEAD = Classification(classes=("a", "b", "c")).head(4)


def make_run(folder: Path, meta: object) -> Run:
    config = {"data": {}, "model": {"meta": meta}, "trainer": {}}
    (folder / "config.yaml").write_text(dump(config))
    return Run.open(folder)


def make_source(outputs: int) -> Source:
    path = name_heads(["items"])["items"]
    assert path != "items"  # a name that modules have already
    head = Classification(classes=tuple(range(outputs))).head(4)
    state = {f"heads.{path}.{name}": torch.ones_like(p) for name, p in head.state_dict().items()}
    return Source("run", state, {"items": {}})


def test_a_plain_run_starts_from_zeros(tmp_path: Path) -> None:
    loop = find_inner_loop(make_run(tmp_path, None), make_source(3), HEAD)
    assert loop.head is None
    assert loop.rate is None
    assert loop.steps == INNER_STEPS
    assert "10 steps of gradient descent from zeros" in describe_inner_loop(loop)


def test_a_meta_learnt_run_lends_its_head_steps_and_rate(tmp_path: Path) -> None:
    settings = {"inner_lr": 0.4, "inner_steps": 5, "test_steps": 7}
    meta = {"class_path": "src.models.meta.anil.ANIL", "init_args": settings}
    run = make_run(tmp_path, meta)
    source = make_source(3)
    loop = find_inner_loop(run, source, HEAD)
    assert (loop.steps, loop.rate) == (7, 0.4)
    assert "as in the run's meta-learning" in describe_inner_loop(loop)
    assert loop.head is not None
    assert torch.equal(loop.head["0.weight"], torch.ones(3, 4))

    # another number of classes has no start there
    assert find_inner_loop(run, make_source(5), HEAD).head is None


def test_targets_are_columns_and_names() -> None:
    assert find_targets("[a, b]") == {"a", "b"}
    assert find_targets("{x: [a, b], y: c}") == {"x", "y", "a", "b", "c"}
    assert find_targets("a") == {"a"}
    assert find_targets(None) == set()


def test_methods_that_do_not_suit_are_named() -> None:
    call = read_call(["--run", "r"])
    fresh = [PartReport("sharing.gates", "grown", ""), PartReport("heads.x", "fresh", "")]
    methods, lines = find_methods(call, "x", fresh, probes=True)
    assert methods == ["finetune", "scratch"]
    assert (
        lines[0]
        == "probe is left out: x reads weights in sharing.gates that the run has not trained"
    )
    methods, lines = find_methods(call, "x", None, probes=False)
    assert methods == ["head", "anil", "finetune", "scratch"]
    assert lines == ["probe is left out: the head of x has hidden layers"]
    assert find_methods(call, "x", None, probes=True)[1] == []
    call = read_call(["--run", "r", "--methods", "probe"])
    with pytest.raises(UserError, match="--method probe does not suit"):
        find_methods(call, "x", None, probes=False)
