"""Settings of fine-tuning that cannot be meant."""

import pytest

from src.errors import UserError
from src.models.transfer.finetune import Finetune, LoRA, flatten


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"thaw_at": {"stages.0": 1}}, "names 'stages.0', which is not frozen"),
        ({"freeze": "encoder", "thaw_at": {"encoder": 0}}, "finetune.thaw_at.encoder is 0"),
        ({"freeze": "encoder", "thaw_at": {"encoder": 1.5}}, "a whole number of at least 1"),
        ({"freeze": "encoder", "thaw_at": {"encoder": True}}, "finetune.thaw_at.encoder is True"),
        ({"freeze": "encoder", "thaw_at": {"encoder:1": None}}, "{encoder: 1}"),
        ({"bias_only": True, "lora": LoRA()}, "leave one of them out"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings, says):
    with pytest.raises(UserError, match="finetune") as error:
        Finetune(**settings)
    assert says in str(error.value)


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_settings_of_adapters(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"finetune.lora.{name} is"):
        LoRA(**settings)


def test_flags_nest_what_files_write_with_dots():
    assert dict(flatten({"stages": {"1": 3, "2": 1}, "heads.a": 2})) == {
        "stages.1": 3,
        "stages.2": 1,
        "heads.a": 2,
    }
    assert Finetune("encoder", {"stages": {"1": 3}}).thaws == {"stages.1": 3}
    assert Finetune("encoder").frozen == ["encoder"]
