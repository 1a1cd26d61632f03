"""python -m src.affinity from the command line: what it prints, keeps and refuses."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.analysis.affinities import read_affinities, read_mean
from src.cli.affinity_table import make_flags
from src.cli.network_costs import count_networks, count_parameters
from src.data import Digits
from src.models import MultiTaskModel
from tests.cli.calling import call, refused, table, words_for_table
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import launch, only_run
from tests.toy import SignalAt

SMALL = ("--model.encoder.width", 8, "--max_epochs", 2, "--watch.figures_every", 0)
FAST = ("--model.encoder.width", 8, "--max_epochs", 1, "--watch.figures_every", 0)
TASKS = ["digit", "odd", "ink", "quadrants"]


def find(pattern: str, text: str) -> str:
    """The first group of the first place that a pattern fits."""
    found = re.search(pattern, text, re.M)
    assert found, text
    return found[1]


def test_a_run_is_trained_again_and_measured(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, "--name", "first", "--no_test")
    assert call("train", *words, *SMALL).code == 0
    first = only_run(tmp_path / "first")
    asked = ("--every", 4, "--networks", 2, "--model.balancer", "UPGrad")
    ended = call("affinity", "--run", first, *asked, "--model.balancer", "StaticWeights")
    assert ended.code == 0, ended.err

    # the same training, in a folder of its own
    run = only_run(tmp_path / "first-affinity")
    ours, theirs = (checkpoint(path, "last")["state_dict"] for path in (run, first))
    assert_same(ours, theirs)
    record = read_affinities(run / "affinity.json")
    assert record["tasks"] == TASKS
    assert record["measured_steps"] == [9]
    assert record["runs"] == [str(run)]
    assert (run / "affinity.png").read_bytes().startswith(b"\x89PNG")

    # tables as in the file, read row helps column
    mean = read_mean(record["lookahead"])
    assert np.isfinite(mean).all()
    assert ended.out.index("row helps column") < ended.out.index("exact, by a step")
    unit = int(find(r"exact, .* in 1e(-?\d+)", ended.out))
    row = find(r"^ odd +(.*)$", ended.out)
    shown = [float(cell) for cell in re.findall(r"(-?\d+\.\d+) ±", row)]
    np.testing.assert_allclose(shown, mean[1] / 10.0**unit, atol=0.0051)

    # the partition trains as printed
    partition = record["partition"]
    assert partition is not None
    assert len(partition["groups"]) <= 2
    printed = find(r"^train it with: (.*)$", ended.out)
    [*_, module, config, path] = shlex.split(printed)[:5]
    assert [module, config, path] == ["src.train", "--config", str(first / "config.yaml")]
    trained = call("train", *shlex.split(printed)[3:], "--logs", tmp_path, "--name", "groups")
    assert trained.code == 0, trained.err
    assert "sharing Groups: " in trained.out
    kept = yaml.safe_load((only_run(tmp_path / "groups") / "config.yaml").read_text())
    assert kept["model"]["sharing"]["init_args"]["groups"] == partition["groups"]


def test_results_go_where_they_are_asked_to(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ("--logs", tmp_path, *FAST, "--budget", 1.0, "--out", out)
    assert call("affinity", *words).code == 0
    partition = read_affinities(out)["partition"]
    assert partition is not None
    assert partition["groups"] == [TASKS]
    assert partition["value"] == pytest.approx(partition["together"])
    assert out.with_suffix(".png").is_file()
    assert not (only_run(tmp_path / "digits-affinity") / "affinity.json").exists()
    refused(call("affinity", *words), ["found.json is there", "--overwrite"])


@pytest.mark.slow
def test_seeds_are_trained_once_and_averaged(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, *FAST, "--every", 4, "--seeds", 2, "--networks", 3)
    done = launch("src.affinity", *words)
    assert "over the means of 2 seeds" in done.stdout
    [path] = (tmp_path / "digits-affinity").glob("affinity-*.json")
    whole = read_affinities(path)
    assert whole["seeds"] == [0, 1]
    each = [
        read_mean(read_affinities(Path(run) / "affinity.json")["lookahead"])
        for run in whole["runs"]
    ]
    np.testing.assert_allclose(read_mean(whole["lookahead"]), np.mean(each, axis=0), rtol=1e-12)

    # called again, nothing trains
    again = launch("src.affinity", *words, timeout=120)
    assert again.stdout == done.stdout
    assert len([*(tmp_path / "digits-affinity" / "trials").glob("*/*/config.yaml")]) == 2


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, *SMALL, "--every", 4)
    launch("src.affinity", *words, "--name", "whole")
    stop = SignalAt.flags(18, tmp_path / "stopped")
    done = launch("src.affinity", *words, "--name", "cut", *stop, code=130)
    cut = only_run(tmp_path / "cut")
    assert f"python -m src.affinity --resume {cut}" in done.stdout + done.stderr
    launch("src.affinity", "--resume", cut)
    ours = read_affinities(cut / "affinity.json")
    theirs = read_affinities(only_run(tmp_path / "whole") / "affinity.json")
    assert ours["lookahead"] == theirs["lookahead"]
    assert ours["measured_steps"] == theirs["measured_steps"] == [9]


def test_a_budget_counts_encoders() -> None:
    data = Digits()
    model = MultiTaskModel(data.tasks, data.input_shape)
    model.configure_model()
    encoder, heads = count_parameters(model)
    assert heads > 0
    for networks in (1, 2, 3, 4):
        takes = (networks * encoder + heads) / (encoder + heads)
        assert count_networks(takes, "parameters", model, data) == networks
        if networks > 1:
            assert count_networks(takes - 1e-3, "parameters", model, data) == networks - 1
    assert count_networks(100, "parameters", model, data) == 4
    # time is measured: heads that are slow leave room for more encoders
    assert count_networks(1.0, "time", model, data) == 1
    assert 2 <= count_networks(2.0, "time", model, data) <= 4
    with pytest.raises(ValueError, match=r"--budget 0\.5: one network for all tasks takes 1"):
        count_networks(0.5, "parameters", model, data)


def test_names_are_written_as_yaml_reads_them() -> None:
    groups = [["NO", "a, b"], ["12", "ärger"]]
    [_, name, _, written, *more] = make_flags(groups, "features")
    assert name == "Groups"
    assert yaml.safe_load(written) == groups
    assert more == ["--model.balancer.level", "parameters"]
    assert make_flags([["a", "b"]], "features")[-1] == "[[a, b]]"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--run", "/nowhere"), ["run folder /nowhere does not exist"]),
        (("--every", 0), ["--every is '0'", "from 1"]),
        (("--seeds", 1), ["--seeds is '1'", "an interval takes two"]),
        (("--seeds", 3, "--seed", 1), ["--seed_everything cannot go with --seeds"]),
        (("--networks", 0), ["--networks is '0'"]),
        (("--networks", 2, "--budget", 2), ["--networks and --budget"]),
        (("--budget", 0.5), ["--budget 0.5: one network for all tasks takes 1"]),
        (("--budget", 2, "--budget_unit", "watts"), ["--budget_unit is 'watts'"]),
        (("--budget_unit", "time"), ["there is no --budget"]),
        (("--out", "x.csv"), ["x.csv", ".json"]),
        (("--out", "/nowhere/x.json"), ["there is no folder /nowhere"]),
        (("--no_test", "false"), ["--no_test cannot go with affinity"]),
        (("--resume", "x", "--every", 3), ["--every cannot go with --resume"]),
        (("--model.sharing", "Separate"), ["Separate has no", "--model.sharing HardSharing"]),
        (("--network", 3), ["network"]),
        (("--data", "Synthetic", "--data.tasks", 1), ["between tasks, and there is one: task1"]),
        (
            ("--devices", 2, "--strategy", "pipeline"),
            ["pipeline has one backward pass", "--strategy ddp"],
        ),
        (("--trust", "mine"), ["--trust goes with --resume"]),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: tuple[object, ...], says: list[str]) -> None:
    refused(call("affinity", "--logs", tmp_path, *words), says)
    assert not any(tmp_path.iterdir())


def test_other_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(table())
    (tmp_path / "other.csv").write_text(table(80))
    words = words_for_table(tmp_path)
    assert call("train", *words, "--name", "first").code == 0
    run = only_run(tmp_path / "logs" / "first")
    ended = call("affinity", "--run", run, "--data.path", tmp_path / "other.csv")
    refused(ended, ["other.csv: is not the file that the run was trained on"])
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["first"]


def test_help_names_the_flags_of_the_command() -> None:
    ended = call("affinity", "--help")
    for flag in ("--networks", "--budget", "--seeds", "--every", "--resume"):
        assert re.search(rf"^  {flag} ", ended.out, re.M), flag
    assert "--no_test" not in ended.out
