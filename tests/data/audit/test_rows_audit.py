"""The audit of rows of any kind."""

import torch

from src.data import Digits, Table
from src.data.audit.label_counts import count_labels, find_rare_classes
from src.data.audit.rows_audit import audit_rows
from src.data.rows import Rows
from src.data.sources import Sources
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

TASKS = {"kind": Classification(classes=("a", "b", "c")), "size": Regression()}


def splits(train=400, other=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, rows in (("train", train), ("val", other), ("test", other)):
        x = torch.randn(rows, 4, 4, generator=generator)
        kind = torch.randint(0, 3, (rows,), generator=generator)
        size = torch.randn(rows, generator=generator)
        made[name] = Rows(x, {"kind": kind, "size": size})
    return made


def test_honest_rows_are_passed_in_silence():
    assert [audit_rows(TASKS, splits(seed=seed)) for seed in range(5)] == [[]] * 5


def test_copies_and_near_copies():
    rows = splits()
    rows["test"].inputs[:8] = rows["train"].inputs[:8]
    rows["val"].inputs[:6] = rows["train"].inputs[:6] + 0.003
    second, first = audit_rows(TASKS, rows, "images")
    assert (first.severity, first.check) == ("high", "near copies")
    assert first.sentence.startswith("6 of 80 val images (8%) are almost training images")
    assert (second.severity, second.check, second.value) == ("high", "copies", 0.1)
    assert second.sentence.startswith("8 of 80 test images (10%) are copies of training images")


def test_classes_and_labels_of_the_splits():
    rows = splits()
    rows["test"].targets["kind"][rows["test"].targets["kind"] == 2] = 0
    rows["val"].targets["size"] += 3
    found = audit_rows(TASKS, rows)
    assert [(finding.check, finding.severity, finding.columns) for finding in found] == [
        ("classes", "medium", ("kind",)),
        ("shift", "medium", ("size",)),
    ]
    assert found[0].sentence == "no test row of 'kind' is of c: some scores are not defined"


def test_labels_are_counted_by_kind():
    labels = MultilabelClassification(labels=("x", "y"))
    nan = float("nan")
    targets = torch.tensor([[1.0, 0.0], [1.0, nan], [0.0, 0.0]])
    assert count_labels(labels, targets).tolist() == [2, 0]
    two = BinaryClassification(classes=("no", "yes"))
    assert count_labels(two, torch.tensor([1.0, nan, 0.0, 1.0])).tolist() == [1, 2]
    assert count_labels(Regression(), torch.zeros(3)).tolist() == []
    (rare,) = find_rare_classes({"y": two}, {"train": {"y": torch.tensor([1.0] * 20 + [0.0])}})
    assert rare.sentence == "class 'no' of 'y' has fewer than 10 training rows"


def test_a_source_among_several_is_named_with_its_flags(tmp_path):
    rows = [f"{i / 7:.4f},{'yes' if i % 3 else 'no'},{int(i % 3 > 0)}" for i in range(200)]
    (tmp_path / "t.csv").write_text("x,y,copy\n" + "\n".join(rows) + "\n")
    table = Table(str(tmp_path / "t.csv"), {"answer": "y"})
    (found,) = Sources({"people": table, "digits": Digits()}).audit(thorough=True)
    assert found.sentence.startswith("people: 'copy' alone tells answer")
    assert found.mend is not None
    assert found.mend.write_flags() == "--data.sources.people.drop '[copy]'"
