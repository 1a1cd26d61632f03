import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.batch import InputShape
from src.models.dropout import Dropout
from src.models.encoders.encoder import Layout
from src.models.encoders.pretrained import FixedStatistics, Pretrained
from src.models.encoders.transformer import pool_sequence
from src.models.sharing import HardSharing, Separate
from src.models.sharing.sharing import check_owners

T = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT = {"vocab_size": 30, "max_position_embeddings": 32, **SIZES}
VIEW = {"image_size": 16, "patch_size": 4, **SIZES}
CONV = {"hidden_sizes": [8, 12], "depths": [1, 2]}
CONFIGS = {
    "bert": T.BertConfig(**TEXT),
    "roberta": T.RobertaConfig(**TEXT),
    "electra": T.ElectraConfig(embedding_size=8, **TEXT),
    "distilbert": T.DistilBertConfig(vocab_size=30, dim=16, n_layers=3, n_heads=2, hidden_dim=32),
    "vit": T.ViTConfig(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3, **VIEW),
    "dinov2": T.Dinov2Config(drop_path_rate=0.3, **VIEW),
    "resnet": T.ResNetConfig(embedding_size=8, layer_type="basic", **CONV),
    "convnext": T.ConvNextConfig(num_stages=2, drop_path_rate=0.5, **CONV),
    "albert": T.AlbertConfig(embedding_size=8, **TEXT),
    "mpnet": T.MPNetConfig(**TEXT),
    "decoder": T.BertConfig(is_decoder=True, **TEXT),
    "modernbert": T.ModernBertConfig(**{**TEXT, "pad_token_id": 0}),
    "megatron-bert": T.MegatronBertConfig(**TEXT),
}
TOKENS, IMAGES = InputShape(tokens=30), InputShape((3, 16, 16))
TEXTS, VIEWS, CONVS = (
    ("bert", "roberta", "electra", "distilbert"),
    ("vit", "dinov2"),
    ("resnet", "convnext"),
)
KINDS = pytest.mark.parametrize("kind", TEXTS + VIEWS + CONVS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{kind: folder with a small model of unlikely weights, so that no part of it hides}."""
    T.utils.logging.set_verbosity_error()
    T.utils.logging.disable_progress_bar()
    places = {}
    for kind, config in CONFIGS.items():
        torch.manual_seed(0)
        model = T.AutoModel.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.2 * torch.randn_like(p))
            if kind == "mpnet":
                model.encoder.relative_attention_bias.weight.zero_()
            for name, buffer in model.named_buffers():
                if "running" in name:
                    buffer.uniform_(0.5, 1.5)
        places[kind] = str(tmp_path_factory.mktemp(kind))
        model.save_pretrained(places[kind])
    return places


def shape_of(kind):
    return IMAGES if kind in VIEWS + CONVS else TOKENS


def inputs_of(kind, rows=4, length=9):
    """Other ones than the example that the encoder was proven with."""
    rng = torch.Generator().manual_seed(1)
    if shape_of(kind) is IMAGES:
        return torch.randn(rows, 3, 16, 16, generator=rng)
    tokens = torch.randint(1, 30, (rows, length), generator=rng)
    for row in range(1, rows):
        tokens[row, length - 2 * row :] = 0
    return {"tokens": tokens}


def own(folder, kind, inputs):
    """What the model itself gives, and the mask."""
    model = T.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if isinstance(inputs, torch.Tensor):
            return model(pixel_values=inputs), None
        # 0 pads here, and the model has its own number for that
        mask = inputs["tokens"] > 0
        padding = CONFIGS[kind].pad_token_id
        tokens = inputs["tokens"].clone()
        tokens[inputs["tokens"] == 0] = padding
        tokens[inputs["tokens"] == padding] = 0 if padding else padding
        return model(input_ids=tokens, attention_mask=mask.long()), mask


@KINDS
@pytest.mark.parametrize("stages", [None, 2])
def test_equals_the_model_itself(folders, kind, stages):
    inputs = inputs_of(kind)
    outputs, mask = own(folders[kind], kind, inputs)
    last = outputs.last_hidden_state
    for pool in ("none", "mean") if kind in CONVS else ("none", "mean", "first"):
        encoder = Pretrained(shape_of(kind), folders[kind], stages=stages, pool=pool)
        assert encoder.training
        z = encoder.eval()(inputs)
        if kind in CONVS:
            expected = last.movedim(1, -1) if pool == "none" else outputs.pooler_output.flatten(1)
        else:
            expected = pool_sequence(last, mask, pool)
        assert encoder.features == z.shape[-1]
        torch.testing.assert_close(z, expected, atol=1e-5, rtol=1e-5)
    blocks = 2 if kind in CONVS else 3
    assert len(encoder.stages) == 1 + (stages or blocks)
    if stages == 2:
        assert [len(m.blocks) for m in (encoder.stages[1], encoder.stages[2][0])] == (
            [1, 1] if kind in CONVS else [1, 2]
        )


@pytest.mark.parametrize("kind", TEXTS)
def test_what_fills_up_is_zero_and_does_not_matter(folders, kind):
    encoder = Pretrained(TOKENS, folders[kind], pool="none").eval()
    state = inputs_of(kind)
    real = state["tokens"] > 0
    for stage in encoder.stages[:-1]:
        state = stage(state)
        assert torch.equal(state[1], real)
        assert not state[0][~real].any()
    z = encoder(inputs_of(kind))
    assert not z[~real].any()
    tokens = torch.cat([inputs_of(kind)["tokens"], torch.zeros(4, 3, dtype=torch.long)], 1)
    tokens[3] = 0
    seen = []
    block = encoder.stages[1].blocks[0]
    hook = block.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    more = encoder({"tokens": tokens})
    hook.remove()
    assert [int((row == 0).sum()) for row in seen[0]] == [
        9,
        7,
        5,
        12,
    ]  # a row without tokens attends to something
    torch.testing.assert_close(more[:3, :9], z[:3], atol=1e-5, rtol=1e-5)
    assert not more[3].any()


@KINDS
def test_parameters_that_train_get_a_gradient(folders, kind):
    encoder = Pretrained(shape_of(kind), folders[kind]).double()
    inputs = inputs_of(kind)
    z = encoder(inputs.double() if isinstance(inputs, torch.Tensor) else inputs)
    (z * torch.randn(z.shape, dtype=z.dtype)).sum().backward()
    still = ["stages.0.embeddings.mask_token"] if kind == "dinov2" else []
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == still
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad] == still
    assert not any(
        "pooler" in name and "layer" not in name for name, _ in encoder.named_parameters()
    )


@pytest.mark.parametrize(
    ("kind", "p", "attention"), [("bert", 0.1, 3), ("vit", 0.2, 0), ("dinov2", 0.0, 3)]
)
def test_dropout_is_that_of_the_house(folders, kind, p, attention):
    encoder = Pretrained(shape_of(kind), folders[kind])
    found = [m for m in encoder.modules() if isinstance(m, nn.Dropout)]
    assert {type(m) for m in found} == {Dropout}
    assert {m.p for m in found} <= {p, 0.0}
    assert p == 0 or sum(m.p == p for m in found) >= 4
    assert not any(getattr(m, "drop_prob", 0) for m in encoder.modules())
    inputs, z = inputs_of(kind), []
    some = inputs[:2] if isinstance(inputs, torch.Tensor) else {"tokens": inputs["tokens"][:2]}
    for batch in (inputs, some):
        torch.manual_seed(5)
        z.append(encoder(batch))
    torch.testing.assert_close(z[0][:2], z[1], atol=1e-5, rtol=1e-5)  # a row's mask is its own
    assert (p > 0) == bool((z[0] - encoder.eval()(inputs)).abs().max() > 1e-3)


def test_batchnorm_keeps_its_statistics(folders):
    encoder = Pretrained(IMAGES, folders["resnet"])
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {type(m) for m in norms} == {FixedStatistics}
    before = [m.running_mean.clone() for m in norms]
    inputs = inputs_of("resnet")
    trained = encoder.train()(inputs)
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))
    assert torch.equal(trained, encoder.eval()(inputs))
    with pytest.raises(
        ValueError, match=r"BatchNorm in .* has its statistics from the weights: set weights true"
    ):
        Pretrained(IMAGES, folders["resnet"], weights=False)


@pytest.mark.parametrize(
    ("freeze", "trains"),
    [(0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0, 1]), (3, [0, 0, 0]), (-1, [0, 0, 0])],
)
def test_freeze_counts_stages(folders, freeze, trains):
    encoder = Pretrained(TOKENS, folders["bert"], stages=2, freeze=freeze)
    assert [{p.requires_grad for p in stage.parameters()} for stage in encoder.stages] == [
        {bool(t)} for t in trains
    ]


def test_initial_weights(folders):
    def weights(seed, **settings):
        torch.manual_seed(seed)
        return torch.cat(
            [p.flatten() for p in Pretrained(TOKENS, folders["bert"], **settings).parameters()]
        )

    saved = T.AutoModel.from_pretrained(folders["bert"])
    loaded = torch.cat(
        [p.flatten() for name, p in saved.named_parameters() if "pooler" not in name]
    )
    assert torch.equal(weights(0), loaded)
    fresh = weights(3, weights=False)
    assert torch.equal(fresh, weights(3, weights=False))
    assert not torch.equal(fresh, weights(4, weights=False))


def test_weights_in_half_precision_become_whole(folders, tmp_path):
    T.AutoModel.from_pretrained(folders["bert"]).bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in Pretrained(TOKENS, str(tmp_path)).parameters()} == {torch.float32}
    assert {p.dtype for p in Pretrained(TOKENS, str(tmp_path), weights=False).parameters()} == {
        torch.float32
    }


@pytest.mark.parametrize(
    ("kind", "freeze"), [("bert", 0), ("bert", 1), ("distilbert", 0), ("vit", 0), ("resnet", 1)]
)
def test_layouts_and_sharing(folders, kind, freeze):
    def make():
        return Pretrained(shape_of(kind), folders[kind], stages=2, freeze=freeze)

    between = [Layout(8, True, 4)] * 2 if kind == "resnet" else [Layout(16, False, 3)] * 2
    assert make().layouts() == [*between, Layout(12 if kind == "resnet" else 16, False, 2)]
    for tasks in (["a", "b"], ["a", "b", "c"]):
        for sharing in (
            HardSharing(make, tasks),
            Separate(make, tasks),
            HardSharing(make, tasks, until=1),
        ):
            check_owners(sharing, inputs_of(kind))


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "message"),
    [
        (
            "bert",
            InputShape((5,)),
            {},
            r"the data gives inputs of shape \(5,\): use --model.encoder MLP",
        ),
        ("bert", InputShape((3,), (4,)), {}, "use --model.encoder TabularTransformer"),
        ("bert", InputShape((6, 3)), {}, "use --model.encoder Transformer"),
        ("bert", InputShape(tokens=31), {}, r"\(bert\) knows 30 tokens, but the data has 31"),
        ("bert", IMAGES, {}, r"\(bert\) does not read inputs of shape \(3, 16, 16\)"),
        ("vit", TOKENS, {}, r"\(vit\) knows 0 tokens, but the data has 30"),
        (
            "vit",
            InputShape((3, 8, 8)),
            {},
            r"\(vit\) with image_size 16 does not read inputs of shape \(3, 8, 8\)",
        ),
        (
            "convnext",
            InputShape((1, 16, 16)),
            {},
            r"\(convnext\) .*does not read inputs of shape \(1, 16, 16\)",
        ),
        (
            "resnet",
            IMAGES,
            {"pool": "first"},
            r"pool first needs tokens, but .* \(resnet\) puts out images",
        ),
        ("bert", TOKENS, {"pool": "max"}, "pool max is neither none nor mean nor first"),
        ("bert", TOKENS, {"stages": 0}, r"stages 0 is outside 1 ... 3, the blocks of .* \(bert\)"),
        ("bert", TOKENS, {"stages": 4}, "stages 4 is outside 1 ... 3"),
        ("bert", TOKENS, {"freeze": 5}, "freeze 5 is neither in 0 ... 4, the stages"),
        ("bert", TOKENS, {"freeze": -2}, "freeze -2 is neither"),
        ("albert", TOKENS, {}, r"finds no embeddings and list of blocks in .* \(albert\)"),
        (
            "mpnet",
            TOKENS,
            {},
            r"\(mpnet\) is more than its blocks one by one",
        ),  # a bias of attention, which is 0 here
        (
            "decoder",
            TOKENS,
            {},
            r"\(bert\) is more than its blocks one by one",
        ),  # it attends backwards alone
        ("megatron-bert", TOKENS, {}, r"\(megatron-bert\) is more than its blocks one by one"),
        ("modernbert", TOKENS, {}, r"the blocks of .* \(modernbert\) do not run one by one"),
    ],
)
def test_bad_settings_are_named(folders, kind, shape, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Pretrained(shape, folders[kind], **settings)
    assert str(caught.value).startswith("Pretrained")


def test_models_that_are_not_there_are_named(folders, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"name '.*empty' is neither a model id on the hub nor a folder"
    ):
        Pretrained(TOKENS, str(tmp_path / "empty"))
    model = T.AutoModel.from_pretrained(folders["bert"])
    name = "encoder.layer.1.output.dense.bias"
    kept = {key: value for key, value in model.state_dict().items() if key != name}
    model.save_pretrained(tmp_path / "half", state_dict=kept)
    with pytest.raises(ValueError, match=rf"weights of .* lack {name}: set weights false"):
        Pretrained(TOKENS, str(tmp_path / "half"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ValueError,
        match=r"^Pretrained needs the transformers package: pip install transformers$",
    ):
        Pretrained(TOKENS, folders["bert"])


def test_random_numbers_of_its_own_are_refused(folders, monkeypatch):
    from transformers.models.bert.modeling_bert import BertIntermediate

    plain = BertIntermediate.forward
    monkeypatch.setattr(
        BertIntermediate, "forward", lambda self, x: F.dropout(plain(self, x), 0.1, self.training)
    )
    with pytest.raises(ValueError, match=r"\(bert\) draws random numbers of its own in training"):
        Pretrained(TOKENS, folders["bert"])
