from src.cli.building import build


class Shape:
    """A class with a setting of the name that the function has for the class.

    Args:
        size: A number.
        kind: A word.
    """

    def __init__(self, size: int, kind: str = "round") -> None:
        self.size = size
        self.kind = kind


def test_a_setting_may_have_any_name():
    shape = build(Shape, 3, kind="square")
    assert (shape.size, shape.kind) == (3, "square")
