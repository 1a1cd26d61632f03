"""Run folders of strangers: no field of a configuration runs code, or writes outside."""

import copy
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.batch import InputShape
from src.cli.classes import import_every_class
from src.cli.layers import ConfigError
from src.cli.runs import load_run
from src.cli.trust import Trust
from src.models.encoders import MLP
from tests.cli.calling import call, refused, table, words_for_table
from tests.cli.damage import places
from tests.launching import only_run

WITH_CLASSES = [
    *(
        "--data.tasks.hours",
        "Regression",
        "--data.tasks.hours.loss",
        "huber",
        "--data.missing",
        "[unknown]",
    ),
    *("--model.sharing", "MMoE", "--model.balancer", "FAMO", "--model.weights.hours", "0.5"),
    *("--model.scheduler", "torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size", "5"),
    *("--trainer.callbacks", "[lightning.pytorch.callbacks.DeviceStatsMonitor]"),
    *("--trainer.profiler", "simple", "--strategy", "ddp", "--devices", "1"),
]
OPENERS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "--run"),
    "predict": ("predict", "--out", "{here}/new.csv", "--run"),
    "resume": ("train", "--max_epochs", "2", "--resume"),
}
ENCODER = """
from pathlib import Path
from src.models.encoders import MLP
Path({mark!r}).touch()
class Wide(MLP):
    pass
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose configuration names classes wherever it can."""
    folder = tmp_path_factory.mktemp("trust")
    (folder / "table.csv").write_text(table())
    ended = call("train", *words_for_table(folder), *WITH_CLASSES)
    assert ended.code == 0, ended.err
    return only_run(folder / "logs" / "table")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that harmful settings would make."""
    return tmp_path / "PWNED"


@pytest.fixture
def config(run: Path) -> Iterator[dict[str, Any]]:
    """The configuration of the run, which is restored afterwards."""
    text = (run / "config.yaml").read_text()
    yield yaml.safe_load(text)
    (run / "config.yaml").write_text(text)


def write(run: Path, config: dict[str, Any]) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def with_value(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Returns nested settings in which one value is replaced."""
    changed = copy.deepcopy(tree)
    owner = changed
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    return changed


def harmful(run: Path, mark: Path) -> dict[str, Any]:
    """Returns values that would make the mark if anything imported or called what they name."""
    (run / "evil.py").write_text(ENCODER.format(mark=str(mark)))
    touch = f"touch {mark}"
    system = {"class_path": "os.system", "init_args": {"command": touch}}
    (run / "evil.yaml").write_text(yaml.safe_dump(system))
    inside = ".".join([*run.relative_to(run.parents[2]).parts, "evil", "Wide"])
    return {
        "function": system,
        "another function": {"class_path": "subprocess.getoutput", "init_args": {"cmd": touch}},
        "class of another kind": {
            "class_path": "subprocess.Popen",
            "init_args": {"args": touch, "shell": True},
        },
        "through a trusted package": {
            "class_path": "torch.os.system",
            "init_args": {"command": touch},
        },
        "in the folder": {"class_path": inside},
        "list": [system],
        "name of a function": "os.system",
        "name in the folder": inside,
        "settings as text": json.dumps(system),
        "file of settings": str(run / "evil.yaml"),
    }


def accepted(
    run: Path, config: dict[str, Any], mark: Path
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields the harmful values that are not refused before parsing, with their places."""
    import_every_class()
    trust = Trust(run)
    for place in list(places(config))[1:]:  # the first is the whole
        for value in harmful(run, mark).values():
            try:
                trust.check(with_value(config, place, value))
            except ConfigError:
                continue
            yield place, value


def test_no_field_takes_a_harmful_value(run: Path, config: dict[str, Any], mark: Path) -> None:
    import_every_class()
    Trust(run).check(config)
    assert len(list(places(config))) > 140
    plain = set()
    for place, value in accepted(run, config, mark):
        assert isinstance(value, str), (place, value)
        plain.add(place)
    # text is text where no class is expected
    assert ("data", "init_args", "path") in plain
    for place in ("model", "optimizer"), ("trainer", "callbacks"), ("trainer", "strategy"):
        assert place not in plain
    assert not mark.exists()


@pytest.mark.parametrize("verb", OPENERS)
@pytest.mark.parametrize(
    "place",
    [
        ("model", "encoder"),
        ("model", "optimizer"),
        ("data", "init_args", "tasks", "hours"),
        ("data", "init_args", "missing", 0),
        ("data",),
    ],
    ids=str,
)
def test_verbs_refuse_it(
    run: Path, config: dict[str, Any], mark: Path, verb: str, place: tuple[Any, ...], tmp_path: Path
) -> None:
    words = [word.format(here=tmp_path) for word in OPENERS[verb]]
    for value in harmful(run, mark).values():
        if isinstance(value, str) and place[-1] == 0:  # a word for missing values
            continue
        write(run, with_value(config, place, value))
        refused(call(*words, run), [str(run)])
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", OPENERS)
def test_verbs_run_nothing_that_is_left(
    run: Path,
    config: dict[str, Any],
    mark: Path,
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(
        run.parents[2]
    )  # the folder that the module in the run would be found from
    words = [word.format(here=tmp_path) for word in OPENERS[verb]]
    more = {"evaluate": [], "predict": ["--overwrite"], "resume": ["--plan"]}[verb]
    values = harmful(run, mark)
    for place, value in accepted(run, config, mark):
        if value not in (values["name in the folder"], values["file of settings"]):
            continue
        write(run, with_value(config, place, value))
        ended = call(*words, run, *more)
        assert ended.code in (0, 2), (place, value, ended)
        assert not mark.exists(), (place, value)


def test_python_refuses_it(run: Path, config: dict[str, Any], mark: Path) -> None:
    write(run, with_value(config, ("model", "optimizer"), harmful(run, mark)["function"]))
    with pytest.raises(ConfigError, match=r"model\.optimizer names os\.system"):
        load_run(run)
    assert not mark.exists()


def test_a_package_is_trusted_by_name_and_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "theirs"
    package.mkdir(parents=True)
    mark = tmp_path / "imported"
    (package / "__init__.py").write_text(ENCODER.format(mark=str(mark)))
    monkeypatch.syspath_prepend(package.parent)
    (tmp_path / "table.csv").write_text(table())
    words = [*words_for_table(tmp_path), "--model.encoder", "theirs.Wide"]
    assert call("train", *words).code == 0
    run = only_run(tmp_path / "logs" / "table")

    mark.unlink()
    monkeypatch.delitem(sys.modules, "theirs")
    for opener in OPENERS.values():
        opening = [word.format(here=tmp_path) for word in opener]
        refused(call(*opening, run), ["model.encoder", "theirs.Wide", "--trust theirs"])
        refused(call(*opening, run, "--trust", "others"), ["model.encoder", "--trust theirs"])
    assert not mark.exists()

    for opener in OPENERS.values():
        opening = [word.format(here=tmp_path) for word in opener]
        ended = call(*opening, run, "--trust", "theirs")
        assert ended.code == 0, ended.err
        refused(call(*opening, run), ["--trust theirs"])
    assert mark.exists()
    assert "trust" not in yaml.safe_load((run / "config.yaml").read_text())
    load_run(run, trust=["theirs"])


@pytest.mark.parametrize("packages", ["my.package", "a b", "os;x"])
def test_trust_names_packages(run: Path, packages: str) -> None:
    refused(call("evaluate", "--run", run, "--trust", packages), ["--trust"])


def test_trust_without_a_run(tmp_path: Path) -> None:
    refused(call("train", "--trust", "mine"), ["--trust", "--resume"])


def test_the_folder_sets_no_key_of_a_verb(
    run: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere.json"
    keys = {
        "out": str(out),
        "overwrite": True,
        "split": "train",
        "run": "/",
        "checkpoint": "last",
        "trust": "os",
    }
    plain = call("evaluate", "--run", run)
    write(run, config | keys)
    ended = call("evaluate", "--run", run)
    assert (ended.code, ended.out) == (0, plain.out)
    assert not out.exists()


WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "callback": ("callbacks", {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}),
    "logger": ("logger", {"class_path": "lightning.pytorch.loggers.CSVLogger"}),
    "profiler": ("profiler", {"class_path": "lightning.pytorch.profilers.SimpleProfiler"}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_resumed_run_writes_below_its_folder(
    run: Path, config: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    setting, writer = WRITERS[kind]
    name = "save_dir" if kind == "logger" else "dirpath"
    for place in (tmp_path, "relative", "~/x", f"{run}/../x", "s3://bucket/x"):
        spec = {**writer, "init_args": {name: str(place)}}
        config["trainer"][setting] = [spec] if kind == "callback" else spec
        write(run, config)
        ended = call("train", "--resume", run, "--max_epochs", "3", "--plan")
        refused(ended, [f"trainer.{setting}", name, str(place), "flag"])
    spec["init_args"] = {name: str(run / "below")}
    write(run, config)
    assert call("train", "--resume", run, "--max_epochs", "3", "--plan").code == 0


def test_a_flag_says_where_else_to_write(run: Path, config: dict[str, Any], tmp_path: Path) -> None:
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "/x"}}
    config["trainer"]["logger"] = logger
    write(run, config)
    words = ("train", "--resume", run, "--max_epochs", "3", "--plan")
    refused(call(*words), ["save_dir"])
    assert call(*words, "--trainer.logger.save_dir", tmp_path).code == 0


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/last.ckpt", "checkpoints/best.ckpt"])
def test_a_link_leads_no_checkpoint_out_of_the_folder(run: Path, name: str, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    elsewhere = tmp_path / "elsewhere"
    (copied / name).rename(elsewhere)
    (copied / name).symlink_to(elsewhere)
    refused(call("train", "--resume", copied, "--max_epochs", "2"), [name, "link"])
    # to read from there harms nothing
    assert call("evaluate", "--run", copied).code == 0


def test_a_job_that_is_started_again_trusts_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENCODER.format(mark=str(tmp_path / "imported")))
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "4733")
    (tmp_path / "table.csv").write_text(table())
    saved = f"[{{class_path: ModelCheckpoint, init_args: {{dirpath: {tmp_path}/copies}}}}]"
    words = [
        *words_for_table(tmp_path),
        "--model.encoder",
        "theirs.Wide",
        "--trainer.callbacks",
        saved,
    ]
    assert call("train", *words).code == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    ended = call("train", *words)
    assert ended.code == 0, ended.err
    assert "nothing was left to train" in ended.out
    only_run(tmp_path / "logs" / "table")


def make(shape: InputShape, width: int = 8) -> MLP:
    """Makes an encoder."""
    return MLP(shape, width=width)


@pytest.mark.parametrize("settings", [{}, {"init_args": {"width": 4}}], ids=["alone", "set"])
def test_no_run_begins_that_would_not_open(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "table.csv").write_text(table())
    encoder = {"class_path": f"{__name__}.make", **settings}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": {"encoder": encoder}}))
    words = words_for_table(tmp_path)
    place = words.index("--model.encoder.width")
    words = words[:place] + words[place + 2 :]
    ended = call("train", *words, "--config", tmp_path / "model.yaml")
    refused(ended, ["model.encoder", "make is a function"])
    assert not (tmp_path / "logs").exists()
