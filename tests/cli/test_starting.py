"""The settings of a run that starts from a model of transformers, and what settings differ."""

from pathlib import Path
from typing import Any

import pytest

from src.cli.starting import list_differences, place_backbone
from src.errors import UserError

PATH = "src.models.encoders.Pretrained"


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


@pytest.mark.parametrize("encoder", [PATH, {"class_path": PATH, "init_args": {"pool": "first"}}])
def test_an_encoder_gets_the_weights_of_a_backbone(backbone: str, encoder: Any) -> None:
    tree: dict[str, Any] = {"init_from": {"source": backbone}, "model": {"encoder": encoder}}
    place_backbone(tree)
    settings = tree["model"]["encoder"]["init_args"]
    assert settings["name"] == backbone
    assert settings["weights"] is True
    assert settings.get("pool") == (None if encoder == PATH else "first")


@pytest.mark.parametrize(
    ("encoder", "parts", "says"),
    [
        ("src.models.encoders.MLP", None, "--model.encoder Pretrained in the place of MLP"),
        ({"class_path": PATH, "init_args": {"name": "bert"}}, None, "are two models"),
        (PATH, ["heads"], "has an encoder alone"),
    ],
)
def test_a_backbone_is_of_an_encoder_alone(
    backbone: str, encoder: Any, parts: Any, says: str
) -> None:
    section = {"source": backbone, "parts": parts}
    with pytest.raises(UserError, match=says):
        place_backbone({"init_from": section, "model": {"encoder": encoder}})


def test_other_sources_leave_the_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("{}")  # a run, whatever else lies there
    for source in (str(tmp_path), None):
        tree: dict[str, Any] = {"init_from": {"source": source}, "model": {"encoder": "MLP"}}
        place_backbone(tree)
        assert tree["model"]["encoder"] == "MLP"


def test_settings_that_differ_are_listed() -> None:
    def choose(width: int, depth: int) -> dict[str, Any]:
        settings = {"width": width, "depth": depth}
        return {"encoder": {"class_path": "src.models.encoders.MLP", "init_args": settings}}

    found = list(list_differences(choose(8, 1), choose(16, 1)))
    assert found == ["model.encoder.width is 16 there, and 8 here"]
    assert not list(list_differences(choose(8, 1), {}))
