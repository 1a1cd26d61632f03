"""Help: the settings of a command on two pages, all of them, and one key at a time."""

import re

import pytest

from src.cli.aliases import ALIASES, EVERYDAY
from src.cli.classes import CHOICES, choices
from tests.cli.calling import call, refused

OWN = {
    "train": ["--resume", "--plan", "--no_test"],
    "evaluate": ["--run", "--checkpoint", "--split", "--out"],
    "predict": ["--run", "--checkpoint", "--out"],
}


def help_of(*words: object, verb: str = "train") -> str:
    """What a command line for help prints."""
    ended = call(verb, *words)
    assert (ended.code, ended.err) == (0, "")
    for noise in ("init_args", "class_path", "<class", "typing.", "Namespace", "==SUPPRESS=="):
        # docstrings show settings as one writes them into a file
        text = re.sub(r"\{class_path: \w+,\s+init_args:\s+\{[^}]*\}\}", "", ended.out)
        assert noise not in text
    return ended.out


def flags_in(text: str) -> list[str]:
    """The flags that lines begin with."""
    return re.findall(r"^  (--\S+)", text, flags=re.M)


@pytest.mark.parametrize("verb", OWN)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_two_pages_and_begins_with_what_is_the_verbs_own(verb: str, flag: str) -> None:
    text = help_of(flag, verb=verb)
    lines = text.splitlines()
    assert lines[0] == f"usage: python -m src.{verb} [--config FILE ...] [--KEY VALUE ...]"
    assert 20 < len(lines) <= 124  # two pages of 62 lines
    assert max(map(len, lines)) <= 110
    shown = flags_in(text)
    assert [flag for flag in shown if flag in OWN[verb]] == sorted(OWN[verb], key=shown.index)
    assert max(map(shown.index, OWN[verb])) < shown.index("--devices")
    for alias in ALIASES if verb == "train" else [n for n, a in EVERYDAY.items() if not a.trains]:
        assert f"--{alias}" in shown
        assert f"(--{ALIASES[alias]})" in text
    assert ("--watch.patience" in shown) == ("--model.encoder" in shown) == (verb == "train")
    assert "--data.batch_size" in shown


def test_help_names_every_class_that_can_be_chosen() -> None:
    text = help_of("--help")
    for key in CHOICES:
        for name in choices(key):
            assert re.search(rf"\b{name}\b", text), name


def test_all_is_everything() -> None:
    text = help_of("--help", "all")
    shown = flags_in(text)
    assert len(text.splitlines()) > 150
    for flag in (
        "--resume",
        "--model.stage_decay",
        "--data.split_seed",
        "--watch.patience",
        "--trainer.gradient_clip_val",
    ):
        assert flag in shown
    refused(call("train", "--help", "model"), ["--help model", "--model.help"])


# words for help, what must be among the flags, what must be said
KEYS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "the model": (
        ["--model.help"],
        ["--model.encoder", "--model.weights", "--model.stage_decay"],
        ["[MLP]", "[1.0]"],
    ),
    "the trainer": (
        ["--trainer.help"],
        ["--trainer.max_epochs", "--trainer.devices"],
        ["Lightning", "[32-true]"],
    ),
    "the watch": (
        ["--watch.help"],
        ["--watch.patience", "--watch.figures_every"],
        ["whole number"],
    ),
    "the data of now": (
        ["--data.help"],
        ["--data.split_seed", "--data.batch_size"],
        ["Digits", "images", "[64]"],
    ),
    "a table": (
        ["--data.help", "Table"],
        ["--data.path", "--data.targets", "--data.missing"],
        ["[required]", "Table"],
    ),
    "a table of now": (
        ["--data", "Table", "--data.batch_size", "7", "--data.help"],
        ["--data.batch_size"],
        ["[7]"],
    ),
    "what a class hands on": (
        ["--data.help", "Adult"],
        ["--data.root", "--data.split_seed", "--data.batch_size"],
        ["Adult"],
    ),
    "an encoder": (
        ["--model.encoder.help", "MLP"],
        ["--model.encoder.width", "--model.encoder.depth"],
        ["ConvNet"],
    ),
    "an encoder by path": (
        ["--model.encoder.help", "src.models.encoders.ConvNet"],
        ["--model.encoder.width"],
        ["ConvNet"],
    ),
    "the encoder of now": (
        ["--model.encoder", "ConvNet", "--model.encoder.help"],
        ["--model.encoder.width"],
        ["[32]"],
    ),
    "a sharing": (
        ["--model.sharing.help", "MMoE"],
        ["--model.sharing.experts"],
        ["MMoE", "Separate"],
    ),
    "a balancer": (
        ["--model.balancer.help", "PCGrad"],
        ["--model.balancer.level"],
        ["features or parameters", "[features]"],
    ),
    "an optimizer": (
        ["--model.optimizer.help", "SGD"],
        ["--model.optimizer.momentum", "--model.optimizer.lr"],
        ["AdamW"],
    ),
    "a schedule": (
        ["--model.scheduler.help", "StepLR"],
        ["--model.scheduler.step_size"],
        ["[required]", "WarmupCosine"],
    ),
    "a strategy": (["--strategy.help", "fsdp"], ["--strategy.tensor_parallel_size"], ["placement"]),
    "all strategies": (
        ["--strategy.help"],
        [],
        ["one of ddp, ddp_placement, fsdp", "--strategy.help"],
    ),
    "a task": (
        ["--data", "Table", "--data.tasks.hours.help"],
        ["--data.tasks.hours.weight", "--data.tasks.hours.pos_weight", "--data.tasks.hours.delta"],
        ["one of", " BinaryClassification,", " MultilabelClassification,", " Regression"],
    ),
    "a task of a kind": (
        ["--data.tasks.hours.help", "Regression"],
        ["--data.tasks.hours.loss"],
        ["mse or mae or huber"],
    ),
    "a task whose kind is set": (
        ["--data", "Table", "--data.tasks.hours", "Regression", "--data.tasks.hours.help"],
        ["--data.tasks.hours.delta"],
        ["Regression"],
    ),
    "a source": (
        ["--data", "Sources", "--data.sources.a.help", "Synthetic"],
        ["--data.sources.a.rows"],
        ["Synthetic"],
    ),
    "a callback": (
        ["--trainer.callbacks.help", "EarlyStopping"],
        ["--trainer.callbacks.patience"],
        ["[required]"],
    ),
    "one setting": (
        ["--model.encoder.width.help"],
        ["--model.encoder.width"],
        ["(whole number) [256]"],
    ),
    "a short name": (["--lr.help"], ["--model.optimizer.lr"], ["number"]),
}


@pytest.mark.parametrize("name", KEYS)
def test_help_of_a_key(name: str) -> None:
    words, shown, says = KEYS[name]
    text = help_of(*words)
    assert set(shown) <= set(flags_in(text)), text
    for word in says:
        assert word in text
    if name == "one setting":
        assert len(text.splitlines()) == 1
    if name == "a task whose kind is set":
        assert "--data.tasks.hours.pos_weight" not in text
    assert "--data.seed" not in text
    assert "--model.tasks" not in text


def test_help_of_what_is_not_there() -> None:
    refused(call("train", "--model.nothing.help"), ["'model.nothing'", "--help all"])
    refused(
        call("train", "--model.encoder.help", "MLPP"),
        ["--model.encoder.help", "'MLPP'", "did you mean 'MLP'"],
    )
    refused(call("train", "--model.encoder.help", "HardSharing"), ["'HardSharing'", "known are"])


def test_what_help_shows_can_be_typed() -> None:
    for words in (
        ["--model.encoder.help", "MLP"],
        ["--data.help"],
        ["--watch.help"],
        ["--model.balancer.help", "CAGrad"],
    ):
        for flag, value in re.findall(r"^  (--\S+).*?\[([\w.]+)\]", help_of(*words), flags=re.M):
            chosen = ["--model.balancer", "CAGrad"] if "balancer" in flag else []
            assert call("train", *chosen, flag, value, "--print_config").code == 0, flag
