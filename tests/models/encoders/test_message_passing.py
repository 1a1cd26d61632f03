import sys

import pytest
import torch

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, MessagePassing, TabularTransformer, Transformer
from src.models.encoders.message_passing import flatten_edges

SHAPE = InputShape(nodes=5, edges=3)
LAYERS = ("gine", "nnconv", "gat")


def make(layer="gine", pool="mean", **settings):
    torch.manual_seed(0)
    encoder = MessagePassing(SHAPE, width=8, depth=2, layer=layer, pool=pool, **settings)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return encoder.double()


def graphs(rows=3, length=6, seed=0):
    """Random graphs of different sizes, padded with rubbish-free zeros."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.tensor([length - k for k in range(rows)])[:, None]
    edges = torch.randint(0, length - rows + 1, (rows, 9, 2), generator=draw)
    edges[1:, 5:] = -1
    nodes = torch.randn(rows, length, 5, generator=draw).double() * mask[..., None]
    features = torch.randn(rows, 9, 3, generator=draw).double() * (edges[..., :1] >= 0)
    return {"nodes": nodes, "node_mask": mask, "edges": edges, "edge_features": features}


def pad_more(inputs, by):
    def pad(x, value=0):
        return torch.cat([x, x.new_full((len(x), by, *x.shape[2:]), value)], 1)

    padded = {key: pad(value) for key, value in inputs.items() if key != "edges"}
    return padded | {"edges": pad(inputs["edges"], -1)}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("pool", ["mean", "sum", "none"])
def test_padding_changes_nothing(layer, pool):
    encoder, inputs = make(layer, pool), graphs()
    z = encoder(inputs)
    more = encoder(pad_more(inputs, 4))
    if pool == "none":
        assert not more[:, 6:].any()
        assert not z[~inputs["node_mask"]].any()
        assert z[inputs["node_mask"]].all()
        more = more[:, :6]
    torch.testing.assert_close(more, z)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_is_its_graphs(layer):
    encoder, inputs = make(layer, "sum"), graphs()
    each = [encoder({key: x[k : k + 1] for key, x in inputs.items()}) for k in range(3)]
    torch.testing.assert_close(encoder(inputs), torch.cat(each))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_order_of_nodes_does_not_count(layer):
    encoder, inputs = make(layer, "none"), graphs(rows=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = inputs | {"nodes": inputs["nodes"][:, order]}
    permuted["edges"] = order.argsort()[inputs["edges"]]
    torch.testing.assert_close(encoder(permuted), encoder(inputs)[:, order])


def test_gine_is_its_formula():
    """x + MLP(x_i + sum over j of ReLU(x_j + W e_ji)), with normalised x inside."""
    encoder, inputs = make(pool="none"), graphs(rows=1)
    block = encoder.stages[1]
    state = encoder.stages[0](inputs)
    found = block(state)[0][0]
    x = state[0][0]
    normed = block.norm(x)
    received = torch.zeros_like(x)
    for (j, i), e in zip(inputs["edges"][0].tolist(), inputs["edge_features"][0], strict=True):
        received[i] += (normed[j] + block.layer.lin(e)).relu()
    torch.testing.assert_close(found, x + block.layer.nn(normed + received))


def test_edges_of_all_graphs_in_a_row():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    edges = torch.tensor([[[0, 1], [-1, -1]], [[2, 0], [1, 2]]])
    index, features = flatten_edges(mask, edges, torch.arange(4.0).view(2, 2, 1))
    assert index.tolist() == [[0, 4, 3], [1, 2, 4]]
    assert features.tolist() == [[0], [2], [3]]


def test_graphs_without_edges_or_without_their_features():
    inputs = graphs()
    alone = inputs | {
        "edges": inputs["edges"][:, :0],
        "edge_features": torch.zeros(3, 0, 3).double(),
    }
    assert make("gine")(alone).isfinite().all()
    encoder = MessagePassing(InputShape(nodes=5), width=4, depth=1)
    encoder.check(InputShape(nodes=5))
    bare = inputs | {"edge_features": torch.zeros(3, 9, 0).double()}
    assert encoder.double()(bare).shape == (3, 4)


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_stages(pool):
    encoder = make(pool=pool).float()
    encoder.check(SHAPE)
    assert [layout.channels for layout in encoder.layouts()] == [8, 8, 8]
    assert [layout.dims for layout in encoder.layouts()] == [3, 3, 2 if pool == "mean" else 3]
    encoder.double()
    encoder.recompute = True
    z = encoder(graphs())
    z.sum().backward()
    once = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    encoder.recompute = False
    encoder(graphs()).sum().backward()
    assert all(torch.equal(p.grad, once[name]) for name, p in encoder.named_parameters())


def test_two_threads_give_the_same_bits():
    before = torch.get_num_threads()
    encoder, inputs = make("gat", "none"), graphs(rows=5, length=40)
    found = []
    try:
        torch.set_num_threads(2)
        for _ in range(3):
            encoder.zero_grad()
            encoder(inputs).square().sum().backward()
            found.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("encoder", [MLP, ConvNet, TabularTransformer, Transformer])
def test_other_encoders_name_this_one(encoder):
    with pytest.raises(ValueError, match=r"gives graphs: use --model.encoder MessagePassing"):
        encoder(SHAPE)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layer": "gcn"}, "none of gine, nnconv, gat"),
        ({"pool": "first"}, "none of none, mean, sum"),
        ({"width": 6, "layer": "gat"}, "not a multiple of heads 4"),
        ({"depth": 0}, "at least 1"),
        ({"dropout": 1.0}, "outside"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        MessagePassing(SHAPE, **settings)
    assert MessagePassing(SHAPE, width=6, depth=1).features == 6
    with pytest.raises(ValueError, match=r"inputs of shape .*--data.features graph"):
        MessagePassing(InputShape((3,)))


def test_without_pytorch_geometric(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    with pytest.raises(ValueError, match="pip install torch_geometric"):
        MessagePassing(SHAPE)
