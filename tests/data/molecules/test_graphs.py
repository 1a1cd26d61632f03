import numpy as np
import pytest
import torch

from src.data.molecules.graphs import Graph, PackedGraphs, pack_geometric
from src.data.rows import Rows, take_rows
from src.models.encoders import MessagePassing
from tests.cli.calling import call
from tests.toy_graphs import FakeGraphs, make_fake


def graph(nodes, edges):
    pairs = torch.tensor(edges, dtype=torch.int16).reshape(-1, 2)
    return Graph(torch.tensor(nodes, dtype=torch.uint8), pairs, pairs.sum(1, keepdim=True) % 3)


THREE = PackedGraphs.pack(
    [
        graph([[0, 1], [1, 0], [2, 1]], [[0, 1], [1, 0], [1, 2]]),
        graph([[2, 0]], []),
        graph([[1, 1], [0, 0]], [[0, 1]]),
    ],
    node_sizes=(3, 2),
    edge_sizes=(4,),
)


def test_graphs_are_padded_to_the_longest_of_a_batch():
    inputs = take_rows(THREE.as_inputs(), torch.tensor([2, 1]))
    batch = Rows(inputs)[torch.tensor([1, 0])].inputs
    assert batch["node_mask"].tolist() == [[True, False], [True, True]]
    assert batch["nodes"].tolist() == [
        [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]],
        [[0, 1, 0, 0, 1], [1, 0, 0, 1, 0]],
    ]
    assert batch["edges"].tolist() == [[[-1, -1]], [[0, 1]]]
    assert batch["edge_features"].tolist() == [[[0, 0, 0, 0]], [[0, 1, 0, 0]]]
    assert THREE.shape.nodes == 5
    assert THREE.shape.edges == 4


def test_a_graph_is_the_same_in_every_batch():
    every = Rows(THREE.as_inputs())
    whole = every[torch.arange(3)].inputs
    for k in range(3):
        alone = every[torch.tensor([k])].inputs
        for part, values in alone.items():
            padded = whole[part][k]
            assert torch.equal(padded[: values.shape[1]], values[0])


def test_graphs_without_an_edge():
    lone = PackedGraphs.pack([graph([[0, 1]], [])], (3, 2), (4,))
    batch = Rows(lone.as_inputs())[torch.tensor([0, 0])].inputs
    assert batch["edges"].shape == (2, 0, 2)
    assert batch["edge_features"].shape == (2, 0, 4)


def test_rows_are_appended_and_hashed():
    other = PackedGraphs.pack([graph([[1, 1], [0, 0]], [[0, 1]])], (3, 2), (4,))
    first, second = THREE.as_inputs(), other.as_inputs()
    for part, values in first.items():
        both = values.append(second[part])
        assert torch.equal(both[torch.tensor([2])].load(), both[torch.tensor([3])].load())
        hashes = both.hash_rows()
        assert hashes.dtype == np.uint64
        assert hashes[2] == hashes[3]
        assert hashes[0] != hashes[1]
        again = values[torch.tensor([2, 0])].append(values[torch.tensor([1])])
        assert again.rows.tolist() == [2, 0, 1]


def test_a_data_set_of_pytorch_geometric(tmp_path):
    data = FakeGraphs()
    assert data.input_shape == MessagePassing(data.input_shape, width=8).shape
    ended = call(
        *("train", "--data", "tests.toy_graphs.FakeGraphs", "--logs", tmp_path),
        *("--model.encoder", "MessagePassing", "--model.encoder.width", 16, "--max_epochs", 8),
        *("--lr", 0.01),
    )
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if line.startswith("class "))
    assert float(line.split()[2]) > 0.6  # accuracy on validation graphs


def test_shapes_of_pytorch_geometrics_graphs():
    data = make_fake(num_graphs=3, avg_num_nodes=5, edge_dim=0)
    packed = pack_geometric(data)
    assert packed.shape.edges == 0
    assert packed.node_counts.tolist() == [each.num_nodes for each in data]
    encoder = MessagePassing(packed.shape, width=4, depth=1)
    assert encoder(Rows(packed.as_inputs())[torch.arange(3)].inputs).shape == (3, 4)
    assert packed.select("nodes", torch.tensor([1]))[0] == pytest.approx(data[1].x)
