import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from src.batch import InputShape
from src.models.encoders import BiLSTM
from src.models.sharing import CrossStitch, HardSharing, Separate
from src.models.sharing.sharing import check_owners

TOKENS, PARTS, DENSE = InputShape(tokens=13), InputShape(tokens=13, parts=7), InputShape((6, 3))
TEXT = torch.tensor([[3, 12, 7, 1, 9], [5, 0, 0, 0, 0], [2, 2, 8, 0, 0], [0, 0, 0, 0, 0]])


def inputs_of(shape):
    generator = torch.Generator().manual_seed(0)
    if not shape.tokens:
        return torch.randn(3, *shape.dense, generator=generator, dtype=torch.float64)
    inputs = {"tokens": TEXT}
    if shape.parts:
        parts = torch.randint(1, shape.parts, (4, 5, 4), generator=generator)
        inputs["parts"] = parts * (TEXT > 0)[..., None]
    return inputs


def make(shape, **settings):
    torch.manual_seed(0)
    sizes = {"width": 8, "depth": 2, "word_size": 6, "piece_size": 5, **settings}
    return BiLSTM(shape, **sizes).double().eval()


def torch_layer(layer):
    """torch's own layer of both directions, with the weights of ours."""
    one = layer.forwards
    both = nn.LSTM(one.input_size, one.hidden_size, batch_first=True, bidirectional=True).double()
    weights = dict(one.named_parameters())
    for name, value in layer.backwards.named_parameters():
        weights[f"{name}_reverse"] = value
    both.load_state_dict(weights)
    return both


@pytest.mark.parametrize("shape", [TOKENS, PARTS], ids=["tokens", "parts"])
def test_equals_torchs_layers_on_packed_sentences(shape):
    encoder = make(shape)
    inputs = inputs_of(shape)
    lengths = (TEXT[:3] > 0).sum(1)
    embedding = encoder.stages[0]
    x = embedding.words(TEXT)
    if shape.parts:
        x = torch.cat([x, embedding.pieces(inputs["parts"])], -1)
    x = x[:3]
    for layer in (encoder.stages[1], encoder.stages[2][0]):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(torch_layer(layer)(packed)[0], batch_first=True)
    z = encoder(inputs)
    torch.testing.assert_close(z[:3], x, rtol=1e-12, atol=1e-12)
    assert not z[3].any()  # a row that only fills up the batch


def test_pieces_are_a_convolution_with_the_largest_answer():
    pieces = make(PARTS).stages[0].pieces
    parts = inputs_of(PARTS)["parts"]
    parts[0, 1, 2:] = 0
    found = pieces(parts)
    kernel = pieces.filters.weight.unflatten(1, (5, -1)).movedim(1, -1)
    for row, place in np.ndindex(*parts.shape[:2]):
        real = parts[row, place][parts[row, place] > 0]
        if not len(real):
            assert not found[row, place].any()
            continue
        x = pieces.embedding(real).T[None]
        answers = F.conv1d(x, kernel, pieces.filters.bias, padding=2)
        torch.testing.assert_close(found[row, place], answers[0].amax(-1), rtol=1e-12, atol=1e-12)


def test_equals_torchs_layers_on_sequences_of_vectors():
    encoder = make(DENSE)
    inputs = inputs_of(DENSE)
    x = encoder.stages[0](inputs)
    for layer in (encoder.stages[1], encoder.stages[2][0]):
        x, _ = torch_layer(layer)(x)
    torch.testing.assert_close(encoder(inputs), x, rtol=1e-12, atol=1e-12)


def test_padding_changes_nothing_and_its_features_are_zero():
    encoder = make(PARTS)
    inputs = inputs_of(PARTS)
    longer = {
        "tokens": F.pad(inputs["tokens"], (0, 4)),
        "parts": F.pad(inputs["parts"], (0, 3, 0, 4)),
    }
    z = encoder(inputs)
    more = encoder(longer)
    torch.testing.assert_close(more[:, :5], z, rtol=1e-13, atol=1e-13)
    assert not more[:, 5:].any()
    assert torch.equal(z.any(-1), TEXT > 0)


def test_each_word_reads_the_whole_sentence_and_no_other_sentence():
    encoder = make(TOKENS)
    z = encoder(inputs_of(TOKENS))
    changed = TEXT.clone()
    changed[0, 4] = 11
    other = encoder({"tokens": changed})
    assert (other[0] - z[0]).abs().amax(-1).min() > 1e-6
    assert torch.equal(other[1:], z[1:])


def test_every_weight_learns():
    encoder = make(PARTS).train()
    encoder(inputs_of(PARTS)).square().sum().backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_dropout_is_on_in_training_alone():
    encoder = make(PARTS, dropout=0.5)
    inputs = inputs_of(PARTS)
    assert torch.equal(encoder(inputs), encoder(inputs))
    encoder.train()
    assert not torch.equal(encoder(inputs), encoder(inputs))
    assert not encoder(inputs)[TEXT == 0].any()


def test_the_layers_stay_in_32_bits_under_autocast():
    encoder = make(PARTS).float().train()
    inputs = inputs_of(PARTS)
    z = encoder(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(inputs)
        rounded.sum().backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, z, rtol=0.05, atol=0.01)
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("sharing", [HardSharing, Separate, CrossStitch])
def test_goes_with_architectures(sharing):
    def encoder(shape=PARTS):
        return BiLSTM(shape, width=8, word_size=6, piece_size=5)

    torch.manual_seed(0)
    network = sharing(encoder, ["a", "b"])
    check_owners(network, PARTS.example())
    features = network(inputs_of(PARTS))
    for z in features.values():
        assert z.shape == (4, 5, 8)
        assert torch.equal(z.detach().any(-1), TEXT > 0)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (InputShape((5,)), {}, r"BiLSTM reads tokens or sequences .* shape \(5,\)"),
        (InputShape((1, 8, 8)), {}, "BiLSTM reads tokens"),
        (InputShape((2,), (3,)), {}, "BiLSTM reads tokens"),
        (InputShape(nodes=3), {}, "BiLSTM reads tokens"),
        (TOKENS, {"width": 7}, "width 7 must be even"),
        (TOKENS, {"depth": 0}, "depth 0"),
        (TOKENS, {"word_size": 0}, "word_size 0"),
        (TOKENS, {"dropout": 1.0}, "dropout 1.0 is outside"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        make(shape, **settings)
