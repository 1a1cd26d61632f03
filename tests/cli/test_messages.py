"""Each sentence of jsonargparse that src/cli/messages.py reads, provoked as installed."""

import re
import shlex

import pytest
from jsonargparse import ArgumentError

from src.cli import app, messages
from src.cli.configuration import Configuration
from src.errors import in_one_line
from tests.cli.calling import call, refused

# pattern, command line, what the pattern finds first, the line that a person reads
SENTENCES: dict[str, tuple[re.Pattern[str], str, str, str]] = {
    "unknown key": (messages.UNKNOWN, "--foo 3", "foo", "unknown key 'foo'; --help lists"),
    "unknown key of a section": (
        messages.UNKNOWN_IN_GROUP,
        "--trainer.max_epocs 3",
        "trainer",
        "unknown key 'trainer.max_epocs'; did you mean 'trainer.max_epochs'?",
    ),
    "unknown setting of a class": (
        messages.OF_CLASS,
        "--data.path x.csv",
        "src.data.digits.Digits",
        "unknown key 'data.path'; Digits knows",
    ),
    "missing setting": (
        messages.REQUIRED,
        "--model.scheduler StepLR",
        "step_size",
        "model.scheduler.step_size is missing; it has no default",
    ),
    "wrong type": (
        messages.TYPE,
        "--trainer.detect_anomaly NO",
        "bool",
        "trainer.detect_anomaly: expected bool, got 'NO'",
    ),
    "no choice": (
        messages.TYPE,
        "--model.balancer PCGrad --model.balancer.level all",
        "'features', 'parameters'",
        "model.balancer.level: expected 'features' or 'parameters', got 'all'",
    ),
    "several types": (
        messages.UNION,
        "--max_epochs 12:30",
        "Expected a <class 'int'> - Expected a <class 'NoneType'>",
        "trainer.max_epochs: expected int, got '12:30'",
    ),
    "no class": (
        messages.NO_PATH,
        "--model.encoder Kolmogorov",
        "Kolmogorov",
        "model.encoder: unknown class 'Kolmogorov'; known are",
    ),
    "no module": (
        messages.NO_MODULE,
        "--model.encoder my.own.Encoder",
        "No module named 'my'",
        "model.encoder: unknown class 'my.own.Encoder' (No module named 'my')",
    ),
    "another class": (
        messages.NO_SUBCLASS,
        "--model.encoder torch.nn.Linear",
        "torch.nn.Linear",
        "model.encoder: torch.nn.Linear is no Encoder; known are",
    ),
    "a class as it was chosen": (
        messages.CLASS_PATH,
        "--data people.csv",
        "people.csv",
        "data: 'people.csv' is a file, not a class",
    ),
    "the key of a value": (
        messages.KEY,
        "--model.encoder.width wide",
        "width",
        "model.encoder.width: expected int, got 'wide'",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pattern, words, found, says = SENTENCES[name]
    texts: list[str] = []

    def explain(error: ArgumentError, settings: Configuration) -> str:
        texts.extend(messages.read_chain(error))
        return messages.explain(error, settings)

    monkeypatch.setattr(app, "explain", explain)
    refused(call("train", "--data.num_workers", 0, *shlex.split(words)), [says])
    matches = [match for text in texts for match in pattern.finditer(text)]
    firsts = [next(filter(None, match.groups()), match[0]) for match in matches]
    assert found in firsts, (firsts, texts)


def test_noise_is_left_out() -> None:
    """A factory, and a name that is neither a class nor a file."""
    for words, sentence in (
        ("--model.encoder.width wide", "expects a function or a callable class: "),
        ("--model.sharing.width 3", "is not accepted"),
    ):
        ended = call("train", *shlex.split(words))
        assert ended.code == 2
        assert sentence not in in_one_line(ended.err)
