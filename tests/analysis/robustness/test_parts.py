"""What training rows say of the parts of a sample."""

import pytest
import torch

from src.analysis.robustness.parts import Part, find_kind, measure_training, split_parts
from src.batch import InputShape
from tests.analysis.robustness.samples import make_images, make_table


def test_missing_values_do_not_count():
    part, inputs = make_table()
    known = inputs["dense"][inputs["dense"][:, 1] == 0, 0].double()
    assert part.learnt.mean[0] == pytest.approx(float(known.mean()))
    assert part.learnt.std[0] == pytest.approx(float(known.std(correction=0)))
    assert part.learnt.low[0] == known.min()
    assert part.find_missing(inputs["dense"])[:, 0].sum() == 40
    assert not part.find_missing(inputs["dense"])[:, 1:].any()


def test_pixels_are_measured_by_channel():
    part, images = make_images()
    assert part.learnt.mean.shape == (2, 1, 1)
    assert part.learnt.mean[1, 0, 0] == pytest.approx(float(images[:, 1].double().mean()))
    assert part.learnt.high[0, 0, 0] == images[:, 0].double().max()


def test_parts_of_several_inputs_are_read_and_written_by_name():
    shape = InputShape(members=(("table", InputShape((2,))), ("note", InputShape(tokens=9))))
    parts = [Part(name, find_kind(own), own) for name, own in split_parts(shape)]
    assert [part.kind for part in parts] == ["table", "text"]
    inputs = {"table/dense": torch.zeros(1, 2), "note/tokens": torch.ones(1, 3)}
    assert parts[1].read(inputs).keys() == {"tokens"}
    written = parts[0].write(inputs, {"dense": torch.ones(1, 2)})
    assert written["table/dense"].sum() == 2
    assert inputs["table/dense"].sum() == 0


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (InputShape((4,), (3,)), "table"),
        (InputShape((), (3,)), "table"),
        (InputShape((3, 8, 8)), "image"),
        (InputShape((5, 3)), "sequence"),
        (InputShape(tokens=9), "text"),
        (InputShape(nodes=3), "graph"),
    ],
)
def test_kinds_follow_from_shapes(shape, kind):
    assert find_kind(shape) == kind


def test_texts_and_graphs_have_no_spread():
    part = Part("", "text", InputShape(tokens=9))
    assert measure_training(part, {"tokens": torch.ones(2, 3)}) is None
