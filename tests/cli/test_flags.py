"""Flags: pairs of keys and values, and several words behind a flag whose value is a list."""

import pytest

from src.cli.flags import Words, refuse_words, split_flags
from src.cli.layers import ConfigError
from src.cli.runs import drop_flags, find_value
from tests.cli.calling import call, refused, table, words_for_table
from tests.launching import only_run


def test_several_words_are_the_text_of_a_list() -> None:
    pairs = split_flags(
        ["--data.targets", "income", "hours", "--lr", "0.1", "--plan", "-c", "a.yaml"]
    )
    assert pairs == [
        ("data.targets", "[income, hours]"),
        ("model.optimizer.lr", "0.1"),
        ("plan", "true"),
        ("config", "a.yaml"),
    ]
    words = pairs[0][1]
    assert isinstance(words, Words)
    assert words.words == ("income", "hours")
    # what YAML would read otherwise is quoted
    assert Words(["a b", "x", "[y]"]) == '["a b", x, "[y]"]'


def test_words_go_on_as_they_came() -> None:
    args = ["--data.targets", "income", "hours", "--watch.patience", "3", "--name", "x"]
    assert drop_flags(args, "watch") == ["--data.targets", "income", "hours", "--name", "x"]
    assert find_value("name", args) == "x"


def test_a_flag_that_is_no_list_takes_one_word() -> None:
    refuse_words(Words(["a", "b"]), (list[str], str))
    refuse_words("a", (str,))
    with pytest.raises(ConfigError, match="'b' belongs to no flag"):
        refuse_words(Words(["a", "b"]), (str,))
    with pytest.raises(ConfigError, match="'b' belongs to no flag"):
        split_flags(["--name", "a", "b"], several=False)
    for words, stray in {
        ("--lr", "0.1", "max_epochs", "3"): "'max_epochs'",
        ("--no_test", "true", "false"): "'false'",
        ("--config", "a.yaml", "b.yaml"): "'b.yaml'",
        ("--resume", "a", "b"): "'b'",
        ("--nonsense", "a", "b"): "'b'",
    }.items():
        refused(call("train", *words), [f"{stray} belongs to no flag"])


def test_a_setting_that_is_a_list_takes_several_words(tmp_path) -> None:
    (tmp_path / "table.csv").write_text(table(60))
    words = words_for_table(tmp_path)
    words[words.index("[income,hours]")] = "income"
    words.insert(words.index("income") + 1, "hours")
    ended = call("train", *words, "--no_test")
    assert ended.code == 0, ended
    assert (
        "targets:\n    - income\n    - hours"
        in (only_run(tmp_path / "logs" / "table") / "config.yaml").read_text()
    )
