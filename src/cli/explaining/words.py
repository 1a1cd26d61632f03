"""Rows in the data's own words: names, values of columns, tokens, predictions and labels."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from src.batch import Batch, InputShape
from src.cli.loaded_run import LoadedRun
from src.cli.selection_rows import as_dict
from src.data import MultiTaskDataModule, Split, Table, Treebank
from src.data.tables.texts import Text, open_tokenizer
from src.errors import UserError


def name_rows(data: MultiTaskDataModule, split: Split, batch: Batch) -> list[Any]:
    """Returns the names of rows as files of predictions have them."""
    names = data.row_info(split).get("id")
    places = batch.ids.tolist()
    return places if names is None else [names[place] for place in places]


def read_values(
    data: MultiTaskDataModule, split: Split, batch: Batch, columns: Sequence[str]
) -> dict[str, list[str | None]]:
    """Returns the values of columns of a table in words; none where the data are no table."""
    found: dict[str, list[str | None]] = {}
    for column in columns:
        try:
            words = data.column_words(split, column)
        except UserError:
            # a column that is made of others, or data without columns
            continue
        found[column] = [words[place] for place in batch.ids.tolist()]
    return found


def spell_tokens(
    data: MultiTaskDataModule, shape: InputShape, batch: Batch
) -> dict[str, list[list[str | None]]]:
    """Returns {input: the word of each token of each row, None at padding}."""
    found: dict[str, list[list[str | None]]] = {}
    given = as_dict(batch.inputs)
    for member, own in shape.members or (("", shape),):
        if own.tokens:
            key = f"{member}/tokens" if member else "tokens"
            found[member or "text"] = spell_rows(data, member, given[key])
    return found


def spell_rows(data: MultiTaskDataModule, member: str, tokens: Tensor) -> list[list[str | None]]:
    """Returns the word of each token (N, S), None at padding."""
    known: dict[int, str] = {}
    for code in tokens.unique().tolist():
        if code:
            known[code] = spell(data, member, code)
    return [[known.get(code) for code in row] for row in tokens.tolist()]


def spell(data: MultiTaskDataModule, member: str, code: int) -> str:
    """Returns a token as people write it, or its number where the data know no words."""
    if isinstance(data, Treebank):
        words = data.words.words
        return words[code - 2] if code >= 2 else "[unknown]"
    if isinstance(data, Table):
        texts = [column for column in data.columns if isinstance(column, Text)]
        for column in texts:
            if member in ("", column.column):
                # the column's own padding and 0 have changed places
                own = column.padding if code == 0 else 0 if code == column.padding else code
                tokenizer = open_tokenizer(column.tokenizer)
                word = tokenizer.decode([own], skip_special_tokens=False).strip()
                return word or str(tokenizer.id_to_token(own))
    return f"token {code}"


def read_predictions(run: LoadedRun, name: str, outputs: Tensor) -> list[Any]:
    """Returns the prediction of each row in a few words."""
    return in_a_word(run.tasks[name].decode(outputs))


def read_labels(run: LoadedRun, name: str, targets: Tensor) -> list[Any]:
    """Returns the label of each row in a few words, None where it is missing."""
    return in_a_word(run.tasks[name].decode_targets(targets))


def in_a_word(decoded: dict[str, list[Any]]) -> list[Any]:
    """Returns the values of a row's columns as one, None where each is missing."""
    if "" in decoded:
        return [shorten(value) for value in decoded[""]]
    # of several labels the decisions, without their probabilities
    decoded = {key: own for key, own in decoded.items() if key.removeprefix("p_") == key}
    rows = zip(*decoded.values(), strict=True)
    found: list[Any] = []
    for values in rows:
        parts = [f"{key} {shorten(value)}" for key, value in zip(decoded, values, strict=True)]
        found.append(None if all(value is None for value in values) else ", ".join(parts))
    return found


def shorten(value: Any) -> Any:
    """Returns a number with four digits, and anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else value
