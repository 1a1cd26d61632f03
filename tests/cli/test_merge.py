"""Runs merged into one: the numbers, the run folder, and runs that cannot be merged."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.analysis.merging.dare import sum_dropped
from src.analysis.merging.fisher import merge_by_fisher
from src.analysis.merging.regmean import merge_by_regression
from src.analysis.merging.ties import merge_vectors
from src.analysis.merging.weights import add
from src.checkpoint import load_checkpoint
from src.cli.merge_call import read_call
from src.cli.runs import load_run
from src.models.transfer.fisher import measure_fisher
from src.run import Run
from tests.cli.calling import call, refused, table, words_for_table
from tests.launching import launch, only_run, read_json

State = dict[str, Tensor]
TASKS = ("class", "class2", "binary", "rare", "labels", "number", "deep", "vector")


def train(folder: Path, name: str, *words: object) -> str:
    ended = call("train", *words, "--logs", folder / "logs", "--name", name)
    assert ended.code == 0, ended
    return str(only_run(folder / "logs" / name))


def on_table(folder: Path, target: str, others: str, *more: object) -> list[object]:
    words: list[object] = [*words_for_table(folder)]
    words[words.index("[income,hours]")] = f"[{target}]"
    words[words.index("[stage]")] = f"[{others}]"
    return [*words, "--max_epochs", 3, *more]


def merge(runs: list[str], folder: Path, method: str, *more: object) -> Path:
    words = ("--method", method, "--logs", folder, "--name", method, *more)
    ended = call("merge", "--runs", *runs, *words)
    assert ended.code == 0, ended
    return only_run(folder / method)


def state_of(run: Path | str) -> State:
    return load_checkpoint(Run(run).best)["state_dict"]


def sharing(state: State) -> State:
    return {
        name.removeprefix("sharing."): tensor
        for name, tensor in state.items()
        if name.startswith("sharing.")
    }


def agree(merged: Path, wanted: State) -> None:
    found = sharing(state_of(merged))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    (folder / "table.csv").write_text(table(200))
    return folder


@pytest.fixture(scope="module")
def runs(folder) -> list[str]:
    """A run on incomes and one on hours, of one seed."""
    return [
        train(folder, "income", *on_table(folder, "income", "hours,stage")),
        train(folder, "hours", *on_table(folder, "hours", "income,stage")),
    ]


@pytest.fixture(scope="module")
def joint(folder) -> str:
    return train(folder, "joint", *on_table(folder, "income,hours", "stage"))


@pytest.fixture(scope="module")
def start(runs) -> State:
    """The weights that both runs began with, from a run of no step."""
    model, _ = load_run(runs[0])
    fresh = type(model)(
        model.tasks, model.input_shape, encoder=model.make_encoder, sharing=model.make_sharing
    )
    fresh.configure_model()
    return {name: tensor.clone() for name, tensor in fresh.sharing.state_dict().items()}


def find_input(network: nn.Module, layer: nn.Module, inputs: Any) -> Tensor:
    """What a layer of a network reads."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(args[0].detach()))
    network(inputs)
    handle.remove()
    return seen[0]


# -- the run folder --------------------------------------------------------------------------------
def test_the_average_has_the_heads_of_all_runs_and_is_an_ordinary_run(runs, joint, tmp_path):
    words = ("--method", "average", "--joint", joint, "--logs", tmp_path, "--name", "m")
    ended = call("merge", "--runs", *runs, *words)
    assert ended.code == 0, ended
    merged = only_run(tmp_path / "m")

    one, two = map(state_of, runs)
    found = state_of(merged)
    for name, tensor in found.items():
        if name.startswith("sharing."):
            wanted = ((one[name].double() + two[name].double()) / 2).float()
            assert tensor.equal(wanted), name
        elif name.startswith("heads.income."):
            assert tensor.equal(one[name])
        elif name.startswith("heads.hours."):
            assert tensor.equal(two[name])

    # the files of a run
    config = (merged / "config.yaml").read_text()
    assert "targets:\n      income: income\n      hours: hours\n" in config
    assert "drop:\n    - stage\n" in config
    assert list(read_json(merged / "schema.json")["tasks"]) == ["income", "hours"]
    assert read_json(merged / "run.json")["sessions"][-1]["status"] == "finished"
    record = read_json(merged / "merge.json")
    assert record["method"] == "average"
    assert [(merged / run).resolve() for run in record["runs"]] == [Path(run) for run in runs]

    # what stands beside
    results = read_json(merged / "metrics.json")
    beside = results["references"]
    assert list(beside) == ["own run", "joint"]
    for name, run in zip(("income", "hours"), runs, strict=True):
        own = read_json(Path(run) / "metrics.json")
        for stage in ("validation", "test"):
            for key, value in own[stage].items():
                if f"/{name}/" in key:
                    assert beside["own run"][stage][key] == value
    together = read_json(Path(joint) / "metrics.json")
    for stage, values in beside["joint"].items():
        assert values == pytest.approx({key: together[stage][key] for key in values})
    for words in ("own run", "joint", "heads income", "heads hours", "threshold of income"):
        assert words in ended.out

    # later commands open it
    out = tmp_path / "found.json"
    assert call("evaluate", "--run", merged, "--out", out).code == 0
    assert read_json(out) == results["test"]
    predictions = tmp_path / "predictions.csv"
    assert call("predict", "--run", merged, "--out", predictions).code == 0
    assert {"income", "hours"} <= set(predictions.read_text().splitlines()[0].split(","))
    refused(
        call("train", "--resume", merged, "--max_epochs", 9),
        ["no training to go on with", f"--init_from {merged}"],
    )


@pytest.mark.slow
def test_a_run_starts_from_a_merged_one_and_from_its_config(runs, folder, tmp_path):
    merged = merge(runs, tmp_path, "average", "--no_test")
    words = ("--config", merged / "config.yaml", "--max_epochs", 1, "--no_test")
    again = train(tmp_path, "again", *words, "--init_from", merged, "--lr", 0)
    before, after = (read_json(Path(run) / "metrics.json")["validation"] for run in (merged, again))
    assert after == pytest.approx(before, rel=1e-6)


def test_runs_may_be_named_in_three_ways() -> None:
    def reads(method: str) -> tuple[str, ...]:
        return ("weights",)

    for words in (["a", "b", "c"], ["a,b, c"], ["[a, b, c]"]):
        found = read_call(["--runs", *words, "--method", "m", "--weights", "0.5,0.3,0.2"], reads)
        assert found.runs == ("a", "b", "c")
        assert found.weights == (0.5, 0.3, 0.2)
    words = ["--runs", "a", "b", "--method", "m", "--weights", "0.5", "0.5", "--lr", "1"]
    spaced = read_call(words, reads)
    assert (spaced.runs, spaced.weights) == (("a", "b"), (0.5, 0.5))
    assert spaced.words == ["--model.optimizer.lr=1"]


# -- methods ---------------------------------------------------------------------------------------
def test_weights_give_each_run_its_share(runs, tmp_path):
    merged = merge(runs, tmp_path, "weights", "--weights", "0.7,0.3", "--no_test")
    one, two = (sharing(state_of(run)) for run in runs)
    agree(merged, {k: (0.7 * one[k].double() + 0.3 * two[k].double()).float() for k in one})
    assert "test" not in read_json(merged / "metrics.json")


def test_task_vectors_are_scaled_from_the_common_start(runs, start, tmp_path):
    states = [sharing(state_of(run)) for run in runs]
    merged = merge(runs, tmp_path, "task_arithmetic", "--scale", 0.4, "--no_test")
    agree(merged, add(start, {k: sum(s[k] - start[k] for s in states) for k in start}, 0.4))
    merged = merge(runs, tmp_path, "ties", "--scale", 0.8, "--density", 0.3, "--no_test")
    agree(merged, add(start, merge_vectors(states, start, 0.3), 0.8))
    words = ("--scale", 0.5, "--density", 0.6, "--draw_seed", 3, "--no_test")
    merged = merge(runs, tmp_path, "dare", *words)
    agree(merged, add(start, sum_dropped(states, start, 0.6, 3), 0.5))


@pytest.mark.slow
def test_the_scale_is_chosen_on_validation_rows(runs, tmp_path):
    words = ("--method", "task_arithmetic", "--logs", tmp_path, "--name", "m", "--no_test")
    ended = call("merge", "--runs", *runs, *words)
    merged = only_run(tmp_path / "m")
    scale = read_json(merged / "merge.json")["scale"]
    best = read_json(merged / "metrics.json")["validation"]["val/score"]
    assert f"scale {scale:g}, chosen on validation rows (score {best:.4f})" in ended.out
    for other in (0.05, 1.0):
        tried = merge(runs, tmp_path / f"{other}", "task_arithmetic", "--scale", other, "--no_test")
        assert read_json(tried / "metrics.json")["validation"]["val/score"] <= best


def test_fisher_looks_at_training_rows_of_each_runs_own_task(runs, tmp_path):
    merged = merge(runs, tmp_path, "fisher", "--rows", 40, "--no_test")
    fishers = []
    for run in runs:
        model, data = load_run(run)
        fishers.append(sharing(measure_fisher(model, data.split("train"), 40)))
    agree(merged, merge_by_fisher([sharing(state_of(r)) for r in runs], fishers, [0.5, 0.5]))


def test_regmean_looks_at_the_inputs_of_linear_layers(runs, tmp_path):
    merged = merge(runs, tmp_path, "regmean", "--rows", 30, "--alpha", 0.8, "--no_test")
    grams = []
    for run in runs:
        model, data = load_run(run)
        rows = data.split("train")
        places = torch.linspace(0, len(rows) - 1, 30).round().long()
        found = {}
        for path, module in model.sharing.named_modules():
            if isinstance(module, nn.Linear):
                x = find_input(model.sharing, module, rows[places].inputs).double()
                found[f"{path}.weight"] = x.T @ x
        grams.append(found)
    assert len(grams[0]) == 5
    agree(merged, merge_by_regression([sharing(state_of(r)) for r in runs], grams, 0.8))


def test_adamerging_leaves_out_what_has_no_entropy_and_makes_the_rest_certain(runs, tmp_path):
    words = ("--method", "adamerging", "--steps", 30, "--rate", 0.05, "--logs", tmp_path)
    ended = call("merge", "--runs", *runs, *words, "--name", "m", "--no_test")
    assert ended.code == 0, ended
    assert "hours left out, whose predictions have no entropy" in ended.out
    line = next(line for line in ended.out.splitlines() if "entropy" in line)
    numbers = line.replace(";", "").split("entropy ")[1].split()
    assert float(numbers[3]) < float(numbers[0])
    found = read_json(only_run(tmp_path / "m") / "merge.json")["coefficients"]
    assert set(found) == set(sharing(state_of(runs[0])))
    assert all(0 <= value <= 1 for values in found.values() for value in values)


def test_a_soup_is_no_worse_than_its_best_run(runs, tmp_path):
    words = ("--method", "soup", "--logs", tmp_path, "--name", "m", "--no_test")
    ended = call("merge", "--runs", *runs, *words)
    assert ended.code == 0, ended
    chosen = read_json(only_run(tmp_path / "m") / "merge.json")["chosen"]
    assert 1 <= len(chosen) <= 2
    states = [sharing(state_of(run)) for run in chosen]
    mean = {k: (sum(s[k].double() for s in states) / len(states)).float() for k in states[0]}
    agree(only_run(tmp_path / "m"), mean)


# -- starts ----------------------------------------------------------------------------------------
def test_runs_of_other_seeds_are_refused_or_aligned(runs, folder, tmp_path):
    words = on_table(folder, "hours", "income,stage", "--seed", 1)
    other = train(folder, "seed1", *words)
    both = ("--runs", runs[0], other, "--logs", tmp_path)
    refused(
        call("merge", *both, "--method", "average"),
        ["layer sharing.encoder.stages.0.", "differs (from seed 0 and from seed 1)", "--align"],
    )
    refused(call("merge", *both, "--method", "ties", "--align"), ["--method ties", "--align"])
    merged = merge([runs[0], other], tmp_path, "average", "--align", "--no_test")
    assert read_json(merged / "merge.json")["aligned"] is True
    # the reordered run predicts what it did, so that all the weight on it gives its own metrics
    words = ("--weights", "0,1", "--align", "--no_test")
    alone = merge([runs[0], other], tmp_path, "weights", *words)
    own = read_json(Path(other) / "metrics.json")["validation"]
    found = read_json(alone / "metrics.json")["validation"]
    for key, value in own.items():
        if "/hours/" in key:
            assert found[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.slow
def test_runs_of_one_source_are_merged_until_the_source_is_gone(folder, tmp_path):
    words = on_table(folder, "income", "hours,stage", "--max_epochs", 1)
    source = train(tmp_path, "source", *words)
    found = []
    for seed, (target, others) in enumerate((("income", "hours"), ("hours", "income"))):
        words = on_table(folder, target, f"{others},stage", "--seed", seed + 5)
        found.append(train(tmp_path, target, *words, "--init_from", source))
    merged = merge(found, tmp_path, "task_arithmetic", "--scale", 0.3, "--no_test")
    zero, one, two = (sharing(state_of(run)) for run in (source, *found))
    agree(merged, {k: zero[k] + 0.3 * (one[k] + two[k] - 2 * zero[k]) for k in zero})
    assert "init_from" not in (merged / "config.yaml").read_text()

    shutil.move(source, tmp_path / "gone")
    merged = merge(found, tmp_path / "without", "average", "--no_test")
    agree(merged, {k: (one[k] + two[k]) / 2 for k in zero})
    refused(
        call("merge", "--runs", *found, "--method", "ties", "--logs", tmp_path),
        ["--method ties reads the weights that the runs started from", "is gone or has changed"],
    )


# -- one data module whose tasks are trained in turn -----------------------------------------------
@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> list[str]:
    """Runs on the toy data, which train classes, and numbers and the class once more."""
    folder = tmp_path_factory.mktemp("toys")
    found = []
    for name, trained in {"a": ("class", "binary"), "b": ("class", "number")}.items():
        weights = ", ".join(f"{task}: 0" for task in TASKS if task not in trained)
        words = (
            *("--data", "tests.toy.Toy", "--accelerator", "cpu", "--max_epochs", 2),
            *("--model.encoder.width", 8, "--model.encoder.depth", 1),
            *("--model.weights", f"{{{weights}}}", "--watch.score", trained[1]),
        )
        found.append(train(folder, name, *words))
    return found


def test_heads_are_from_the_runs_that_train_them(toys, tmp_path):
    merged = merge(toys, tmp_path, "average", "--no_test")
    one, two, found = map(state_of, (*toys, merged))
    for name, tensor in found.items():
        if name.startswith("heads.binary."):
            assert tensor.equal(one[name])
        elif name.startswith("heads.number."):
            assert tensor.equal(two[name])
        elif name.startswith("heads.class."):
            torch.testing.assert_close(tensor, (one[name] + two[name]) / 2)
        elif name.startswith("heads."):
            assert tensor.equal(one[name])
    # what no run trains does not count
    model, _ = load_run(merged)
    assert [name for name in TASKS if model.weights[name] > 0] == ["class", "binary", "number"]
    assert [name for name in TASKS if model.score_weights[name]] == ["class", "binary", "number"]
    assert list(read_json(merged / "metrics.json")["references"]) == ["run 1", "run 2"]

    chosen = merge(toys, tmp_path / "b", "average", "--heads", "{class: 2}", "--no_test")
    state = state_of(chosen)
    own = [name for name in two if name.startswith("heads.class.")]
    assert own
    assert all(state[name].equal(two[name]) for name in own)


@pytest.mark.slow
def test_architectures_with_parts_of_one_task_merge_runs_of_the_same_tasks(tmp_path):
    words = (
        *("--data", "tests.toy.Toy", "--accelerator", "cpu", "--max_epochs", 1, "--no_test"),
        *("--model.encoder.width", 4, "--model.encoder.depth", 1, "--model.sharing", "MMoE"),
    )
    runs = [train(tmp_path, f"r{lr}", *words, "--lr", lr) for lr in (0.01, 0.03)]
    merged = merge(runs, tmp_path, "soup", "--no_test")
    assert any(".gates." in name or "gate" in name for name in state_of(merged))
    lesser = train(tmp_path, "less", *words, "--model.weights", "{number: 0}")
    refused(
        call("merge", "--runs", runs[0], lesser, "--method", "average", "--logs", tmp_path),
        ["MMoE has parts that belong to one task each, such as sharing.", "HardSharing"],
    )


@pytest.mark.slow
def test_hidden_layers_of_heads_of_other_starts_are_not_averaged(tmp_path):
    words = (
        *("--data", "tests.toy.Toy", "--accelerator", "cpu", "--max_epochs", 1, "--no_test"),
        *("--model.encoder.width", 4, "--model.encoder.depth", 1),
    )
    runs = [train(tmp_path, f"s{seed}", *words, "--seed", seed) for seed in (0, 1)]
    both = ("--runs", *runs, "--method", "average", "--align", "--logs", tmp_path, "--no_test")
    refused(call("merge", *both), ["task 'deep' have hidden layers", "--heads '{deep: 1}'"])
    ended = call("merge", *both, "--heads", "{deep: 2}", "--name", "m")
    assert ended.code == 0, ended
    two, found = state_of(runs[1]), state_of(only_run(tmp_path / "m"))
    assert found["heads.deep.2.weight"].equal(two["heads.deep.2.weight"])


# -- runs that cannot be merged --------------------------------------------------------------------
@pytest.mark.slow
def test_runs_of_other_networks_or_rows_are_refused(runs, toys, folder, tmp_path):
    def refused_with(other: str, *says: str) -> None:
        ended = call("merge", "--runs", runs[0], other, "--method", "average", "--logs", tmp_path)
        refused(ended, [f"{other} cannot be merged with {runs[0]}", *says])

    refused_with(toys[0], "its data are Toy, not Table")
    words = on_table(folder, "hours", "income,stage")
    deep = train(folder, "deep", *words, "--model.encoder.depth", 1)
    refused_with(deep, "it has no layer sharing.encoder.stages.1.body.0.weight")
    mmoe = train(folder, "mmoe", *words, "--model.sharing", "MMoE")
    refused_with(mmoe, "its sharing is MMoE, not HardSharing")
    dealt = train(folder, "dealt", *words, "--data.split_seed", 1)
    refused_with(dealt, "other sides of the split", "data.split_seed 1, not 0")
    fewer = train(folder, "fewer", *on_table(folder, "hours", "income,stage,age"))
    refused_with(fewer, "column 'age' is no input of it", "--data.drop")
    more = train(folder, "more", *on_table(folder, "hours", "stage"))
    refused_with(more, "it has a further input 'income'")
    kinds = train(
        folder,
        "kinds",
        *on_table(folder, "income,hours", "stage"),
        "--data.tasks.income.pos_weight",
        2,
    )
    refused_with(kinds, "its task 'income' has pos_weight 2, not 1.0")


def test_a_run_of_another_width_is_refused(runs, folder, tmp_path):
    words = on_table(folder, "hours", "income,stage", "--model.encoder.width", 4, "--no_test")
    wide = train(folder, "wide", *words)
    says = "its layer sharing.encoder.stages.0.1.weight has the shape (4, "
    both = ("--runs", runs[0], wide, "--logs", tmp_path)
    refused(call("merge", *both, "--method", "average"), [says, "not (8, "])


def test_mistakes_are_one_line(runs, joint, toys, folder, tmp_path):
    reference = tmp_path / "logs"
    words = (
        *("--data", "Table", "--data.path", folder / "table.csv", "--data.drop", "[stage]"),
        *("--data.targets", "[income,hours]", "--logs", reference, "--name", "r"),
    )
    assert call("reference", "--method", "constant", *words).code == 0
    constant = only_run(reference / "r")
    two = ["--runs", *runs]
    average = ["--method", "average"]
    for given, says in (
        ([], ["--runs is missing"]),
        (["--runs", runs[0], *average], ["one run alone cannot be merged"]),
        (["--runs", f"{runs[0]},", *average], ["a name is missing beside a comma"]),
        (["--runs", runs[0], runs[0], *average], [f"names {runs[0]} twice"]),
        (["--runs", runs[0], "nowhere", *average], ["run folder nowhere does not exist"]),
        (["--runs", runs[0], constant, *average], ["reference constant", "has no weights"]),
        (two, ["--method is missing"]),
        ([*two, "--method", "tie"], ["--method is 'tie'; did you mean 'ties'?"]),
        ([*two, "--method", "weights"], ["needs --weights, one for each run"]),
        ([*two, "--method", "weights", "--weights", "0.5,0.3"], ["0.5,0.3 sum to 0.8"]),
        ([*two, "--method", "weights", "--weights", "1"], ["one for each of the 2 runs"]),
        ([*two, "--method", "weights", "--weights", "a,b"], ["'a' is no number"]),
        ([*two, *average, "--density", "0.5"], ["--density has no meaning for --method average"]),
        ([*two, "--method", "ties", "--density", "0"], ["above 0 and at most 1"]),
        ([*two, "--method", "fisher", "--rows", "0"], ["--rows is '0'"]),
        ([*two, "--method", "regmean", "--alpha", "2"], ["--alpha is '2'"]),
        ([*two, *average, "--heads", "{income: 3}"], ["the run 3", "1 to 2"]),
        ([*two, *average, "--heads", "{incme: 1}"], ["'incme'", "did you mean 'income'?"]),
        ([*two, *average, "--heads", "{income: 2}"], ["run 2", "has no task 'income'"]),
        ([*two, *average, "--joint", toys[0]], ["it was not trained on income"]),
        ([*two, *average, "--run", runs[0]], ["--run names one run"]),
        ([*two, *average, "--nonsense", "1"], ["nonsense"]),
        ([*two, *average, "--name", "../x"], ["--name ../x"]),
        ([*two, *average, "--align", "maybe"], ["--align is 'maybe'"]),
    ):
        refused(call("merge", *given, "--logs", tmp_path / "none"), says)
    assert not (tmp_path / "none").exists()
    assert "regmean" in call("merge", "--help").out


@pytest.mark.slow
def test_a_run_with_a_network_for_each_task_is_refused(folder, runs, tmp_path):
    words = on_table(folder, "income,hours", "stage", "--watch.patience_by_task", 1)
    several = train(folder, "several", *words, "--max_epochs", 6, "--lr", 0.05)
    kept = load_checkpoint(Run(several).best)
    if len(set(kept["task_steps"].values())) < 2:
        kept["task_steps"] = {"income": kept["global_step"], "hours": 0}
        kept["other_weights"] = {0: kept["state_dict"]}
        torch.save(kept, Run(several).best)
    both = ("--runs", runs[0], several, "--method", "average", "--logs", tmp_path)
    refused(call("merge", *both), ["the network of its own best epoch", "--checkpoint last"])
    assert call("merge", *both, "--checkpoint", "last", "--no_test").code == 0


# -- processes -------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_command_gives_the_same_numbers_on_two_processes(runs, tmp_path):
    folders = []
    for devices in (1, 2):
        words = ("--method", "ties", "--logs", tmp_path, "--name", f"on{devices}")
        launch("src.merge", "--runs", *runs, *words, "--devices", devices)
        folders.append(only_run(tmp_path / f"on{devices}"))
    alone, together = map(state_of, folders)
    assert all(tensor.equal(together[name]) for name, tensor in alone.items())
    one, two = (read_json(folder / "metrics.json") for folder in folders)
    assert two["validation"] == pytest.approx(one["validation"], rel=1e-5)
    # two rows that are nearly alike may change places by rounding, which AP and AUROC see
    assert two["test"] == pytest.approx(one["test"], rel=1e-2)
    assert two["references"] == one["references"]
