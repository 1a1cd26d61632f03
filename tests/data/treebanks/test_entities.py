import pytest

from src.data.treebanks.conllu import read_conllu
from src.data.treebanks.entities import join_entities, read_iob2
from src.errors import UserError
from tests.data.treebanks.made_treebanks import as_conllu, as_iob2, make_sentences

HEAD = "# sent_id = s1"


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_are_joined_by_id_where_the_words_agree(tmp_path):
    sentences = make_sentences("dev")
    treebank = write(tmp_path / "x.conllu", as_conllu(sentences))
    text = as_iob2(sentences[:30][::-1]).replace(
        as_iob2([sentences[2]]).strip(), as_iob2([sentences[2]]).strip().replace("\t", "\tOther", 1)
    )
    entities = read_iob2(write(tmp_path / "x.iob2", text))
    labels, joined, different = join_entities(read_conllu(treebank), entities)
    assert (joined, different) == (29, 1)
    place = 0
    for number, (_, words) in enumerate(sentences):
        own = labels[place : place + len(words)]
        place += len(words)
        if number == 2 or number >= 30:
            assert set(own) == {"_"}
            continue
        for word, label in zip(words, own, strict=True):
            kind = {"Anna": "PER", "Bonn": "LOC"}.get(word)
            assert label[2:] == (kind or "")


def test_an_entity_that_nothing_begins_is_begun_and_told(tmp_path):
    lines = ["1\ta\tO", "2\tb\tI-PER", "3\tc\tI-PER", "4\td\tI-LOC"]
    found = read_iob2(write(tmp_path / "x.iob2", HEAD, *lines))
    assert found.tags["s1"] == (["a", "b", "c", "d"], ["O", "B-PER", "I-PER", "B-LOC"])
    assert [note.partition("line ")[2] for note in found.mended] == [
        "3: I-PER follows O",
        "5: I-LOC follows I-PER",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEAD, "1\ta\tPER"], "line 2: has the label 'PER', which is not O, B-X or I-X"),
        ([HEAD, "1\ta\tB-"], "line 2: has the label 'B-'"),
        (["1\ta\tO"], "line 1: begins a sentence without a '# sent_id"),
        ([HEAD, "1\ta\tO", "", HEAD, "1\tb\tO"], "line 5: the sentence id 's1' stands there twice"),
        ([HEAD, "1\ta"], "line 2: has 2 columns, where 3 to 5"),
        ([HEAD, "1\ta\tO", "1\tb\tO"], "line 3: begins a sentence; a blank line"),
    ],
)
def test_a_broken_line_is_named_or_its_sentence_left_out(tmp_path, lines, message):
    path = write(tmp_path / "x.iob2", *lines, "", "# sent_id = last", "1\tz\tO")
    with pytest.raises(UserError, match=message):
        read_iob2(path)
    kept = read_iob2(path, on_error="skip")
    assert "last" in kept.tags
    assert len(kept.skipped) == 1
    assert message in kept.skipped[0]


def test_a_file_without_sentences_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no sentence; an IOB2 file"):
        read_iob2(write(tmp_path / "x.iob2", "# nothing"))
