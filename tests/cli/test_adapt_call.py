"""The command line of adapt: its own flags, and those it hands on."""

import pytest

from src.cli.adapt_call import METHODS, read_call
from src.cli.layers import ConfigError

RUN = ["--run", "logs/x/1"]


def test_defaults() -> None:
    call = read_call(RUN)
    assert call.run == "logs/x/1"
    assert call.shots == [5, 10, 20, 50]
    assert call.draws == 10
    assert call.methods == list(METHODS)
    assert call.method is None
    assert call.steps == 100
    assert call.tests
    assert call.words == []


def test_lists_with_brackets_blanks_and_several_words() -> None:
    assert read_call([*RUN, "--shots", "[20, 5,5]"]).shots == [5, 20]
    assert read_call([*RUN, "--shots", "20", "5"]).shots == [5, 20]
    assert read_call([*RUN, "--methods", "scratch,probe"]).methods == ["probe", "scratch"]
    assert not read_call([*RUN, "--no_test"]).tests
    assert read_call([*RUN, "--no_test", "false"]).tests


def test_other_flags_are_handed_on() -> None:
    call = read_call([*RUN, "--data.targets", "[x]", "--draws", "3", "--lr", "0.1"])
    assert call.words == ["--data.targets", "[x]", "--model.optimizer.lr", "0.1"]
    assert call.draws == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--run is missing"),
        ([*RUN, "--shots", "5,a"], "--shots has 'a'"),
        ([*RUN, "--shots", "0"], "--shots has '0'"),
        ([*RUN, "--shots", "[]"], "whole numbers from 1"),
        ([*RUN, "--shots"], "--shots needs a value"),
        ([*RUN, "--draws", "0"], "--draws is '0'; it must be a whole number from 1 to 1000"),
        ([*RUN, "--steps", "1.5"], "--steps is '1.5'"),
        ([*RUN, "--methods", "prob"], "did you mean 'probe'"),
        ([*RUN, "--methods", "[]"], "--methods is empty"),
        ([*RUN, "--method", "maml"], "--method maml is unknown"),
        ([*RUN, "--methods", "probe", "--method", "head"], "none of --methods probe"),
        ([*RUN, "--no_test", "maybe"], "true or false"),
        ([*RUN, "--init_from", "x"], "--init_from"),
    ],
)
def test_wrong_values_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_call(words)
    assert says in str(caught.value)
