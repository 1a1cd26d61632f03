import gzip
from pathlib import Path

import pytest

from src.data.treebanks.conllu import read_conllu, read_plain_text
from src.errors import UserError
from tests.data.treebanks.made_treebanks import WORDS, as_conllu, make_sentences

WORD = "{}\t{}\t_\tNOUN\tNN\tNumber=Sing\t0\troot\t_\t_"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_words_labels_and_documents_without_the_other_lines(tmp_path):
    sentences = make_sentences("train")
    path = tmp_path / "x.conllu"
    path.write_text(as_conllu(sentences))
    found = read_conllu(path)
    assert found.ids == [name for name, _ in sentences]
    assert [found.words_of(k) for k in range(len(found))] == [words for _, words in sentences]
    assert found.columns["upos"] == [WORDS[word][0] for _, words in sentences for word in words]
    assert found.columns["feats"] == [WORDS[word][2] for _, words in sentences for word in words]
    assert found.columns["deprel"] == [WORDS[word][3] for _, words in sentences for word in words]
    assert found.documents == [name.rpartition("-")[0] for name, _ in sentences]
    assert found.offsets[-1] == len(found.forms) == sum(len(words) for _, words in sentences)
    zipped = tmp_path / "x.conllu.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_conllu(zipped).forms == found.forms


def test_forms_that_people_write_all_the_same(tmp_path):
    """A byte-order mark, Windows' line ends, several blank lines, words with spaces."""
    path = tmp_path / "x.conllu"
    text = "\n".join(
        [WORD.format(1, "10 000"), WORD.format(2, "x\u2028y"), "", "", WORD.format(1, "b")]
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = read_conllu(path)
    assert found.forms == ["10 000", "x\u2028y", "b"]
    assert found.ids == ["1", "2"]


BROKEN = {
    "columns": (["1\ta\tb"], "line 3: has 3 columns, where 10 with tabs"),
    "spaces": ([WORD.format(1, "a").replace("\t", " ")], "line 3: has 1 columns"),
    "id": ([WORD.format("one", "a")], "line 3: has the id 'one', where word 1"),
    "gap": ([WORD.format(1, "a"), WORD.format(3, "b")], "line 4: has the id '3', where word 2"),
    "blank": (
        [WORD.format(1, "a"), WORD.format(1, "b")],
        "line 4: begins a sentence; a blank line",
    ),
    "comment": ([WORD.format(1, "a"), "# sent_id = 2"], "line 4: is a comment within a sentence"),
    "form": ([WORD.format(1, "")], "line 3: has no word in its second column"),
    "features": ([WORD.format(1, "a").replace("=", ":")], "line 3: has the features 'Number:Sing'"),
    "bytes": ([WORD.format(1, "caf\udce9")], "line 3: is no UTF-8 text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_line_is_named_or_its_sentence_left_out(tmp_path, case):
    lines, message = BROKEN[case]
    path = tmp_path / "x.conllu"
    text = "\n".join([WORD.format(1, "first"), "", *lines, "", WORD.format(1, "last"), ""])
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="x.conllu " + message) as caught:
        read_conllu(path)
    assert "--data.on_error skip" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = read_conllu(path, on_error="skip")
    assert kept.forms == ["first", "last"]
    assert len(kept.skipped) == 1
    assert message in kept.skipped[0]


def test_files_without_sentences_are_named(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "comments").write_text("# newdoc\n\n")
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"x" * 9999)[:-9])
    cases = {
        "none": "there is no such file",
        "empty": "is empty",
        "comments": "holds no sentence",
        "broken.gz": "cannot be read",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=f"{name}: {message}"):
            read_conllu(tmp_path / name)


def test_plain_text_is_a_sentence_a_line(tmp_path):
    found = read_plain_text(write(tmp_path / "x.txt", "A dog  saw it .", "", "oh"))
    assert [found.words_of(k) for k in range(2)] == [["A", "dog", "saw", "it", "."], ["oh"]]
    assert found.ids == ["1", "3"]
    assert set(found.columns["upos"]) == {"_"}


def test_files_are_put_one_behind_the_other(tmp_path):
    one = read_plain_text(write(tmp_path / "1.txt", "a b", "c"))
    one.append(read_plain_text(write(tmp_path / "2.txt", "d e f")))
    assert [one.words_of(k) for k in range(3)] == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert len(one.columns["feats"]) == 6
