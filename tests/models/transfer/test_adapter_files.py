"""Files of adapters, as peft itself opens them."""

from functools import partial

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from src.batch import InputShape
from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet, Pretrained
from src.models.sharing import HardSharing, MMoE
from src.models.transfer.adapter_files import WEIGHTS, save_adapters
from src.models.transfer.finetune import Finetune, LoRA
from src.models.transfer.lora import strip_adapters
from src.tasks import Regression
from tests.models.transfer.test_lora import randomise

TASKS = {"y": Regression(mean=(0.0,), std=(1.0,))}
SETTINGS = LoRA(rank=2, alpha=5.0)


def trained(encoder, shape, sharing=HardSharing):
    """A model with adapters that are not 0, in evaluation."""
    model = MultiTaskModel(TASKS, shape, encoder, sharing)
    model.finetune = Finetune(lora=SETTINGS)
    model.configure_model()
    randomise(model)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(MLP, width=4, depth=1), InputShape((5,))),
        (partial(ConvNet, width=4, depth=2), InputShape((2, 6, 6))),
    ],
)
def test_peft_opens_them_on_our_encoders(tmp_path, make, shape):
    model = trained(make, shape)
    assert save_adapters(model, model.state_dict(), SETTINGS, tmp_path) == [tmp_path]
    x = shape.example(6)
    expected = model.sharing.encoder(x)

    def base():
        encoder = make(shape)
        encoder.load_state_dict(strip_adapters(model.sharing.encoder.state_dict()))
        return encoder.eval()

    opened = peft.PeftModel.from_pretrained(base(), str(tmp_path))
    assert torch.equal(opened(x), expected)
    torch.testing.assert_close(opened.merge_and_unload()(x), expected, rtol=1e-5, atol=1e-6)

    # by hand, without a wrapper
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert (config.r, config.lora_alpha) == (2, 5.0)
    injected = peft.inject_adapter_in_model(config, base())
    state = {
        name.removeprefix("base_model.model."): tensor
        for name, tensor in load_file(str(tmp_path / WEIGHTS)).items()
    }
    left = peft.set_peft_model_state_dict(injected, state)
    assert not left.unexpected_keys
    assert torch.equal(injected.eval()(x), expected)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_opens_them_on_a_bert(tmp_path):
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
    }
    folder = str(tmp_path / "bert")
    BertModel(BertConfig(vocab_size=9, max_position_embeddings=8, **sizes)).save_pretrained(folder)
    model = trained(partial(Pretrained, name=folder, pool="none"), InputShape(tokens=9))
    save_adapters(model, model.state_dict(), SETTINGS, tmp_path / "adapter")
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = model.sharing.encoder({"tokens": tokens})

    base = BertModel.from_pretrained(folder).eval()
    before = base(tokens).last_hidden_state
    opened = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    assert opened.peft_config["default"].base_model_name_or_path == folder
    found = opened(input_ids=tokens).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (found - before).abs().max() > 1e-2
    # the pooler, which the encoder leaves out, has none
    assert not hasattr(opened.base_model.model.pooler.dense, "lora_A")

    # as transformers opens them by itself
    plain = BertModel.from_pretrained(folder).eval()
    plain.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(plain(tokens).last_hidden_state, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_opens_them_on_a_vit(tmp_path):
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 12,
    }
    folder = str(tmp_path / "vit")
    ViTModel(ViTConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(folder)
    shape = InputShape((3, 8, 8))
    model = trained(partial(Pretrained, name=folder, pool="none"), shape)
    save_adapters(model, model.state_dict(), SETTINGS, tmp_path / "adapter")
    x = shape.example(3)
    base = ViTModel.from_pretrained(folder).eval()
    opened = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    expected = model.sharing.encoder(x)
    torch.testing.assert_close(
        opened(pixel_values=x).last_hidden_state, expected, rtol=1e-5, atol=1e-6
    )
    # the convolution of the patches is adapted, too
    assert any("projection" in name for name in load_file(str(tmp_path / "adapter" / WEIGHTS)))


def test_each_expert_has_a_folder(tmp_path):
    shape = InputShape((5,))
    model = trained(partial(MLP, width=4, depth=1), shape, partial(MMoE, experts=2))
    written = save_adapters(model, model.state_dict(), SETTINGS, tmp_path)
    assert written == [tmp_path / "experts.encoders.0", tmp_path / "experts.encoders.1"]
    x = shape.example(6)
    for folder, encoder in zip(written, model.sharing.experts.encoders, strict=True):
        base = MLP(shape, width=4, depth=1)
        base.load_state_dict(strip_adapters(encoder.state_dict()))
        opened = peft.PeftModel.from_pretrained(base.eval(), str(folder))
        assert torch.equal(opened(x), encoder(x))
