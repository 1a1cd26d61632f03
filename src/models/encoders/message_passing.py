"""Message passing networks for graphs, made of layers of PyTorch Geometric."""

import warnings
from typing import Literal

from torch import Tensor, nn

from src.batch import InputShape
from src.errors import UserError
from src.models.dropout import Dropout
from src.models.encoders.convnet import describe
from src.models.encoders.encoder import Encoder, State
from src.models.encoders.transformer import check_sizes, pool_sequence

Layer = Literal["gine", "nnconv", "gat"]
Pool = Literal["none", "mean", "sum"]


class GraphStart(nn.Module):
    """Projects the features of nodes, and keeps the edges.

    {'nodes': (B, N, F), 'node_mask': (B, N), 'edges': (B, E, 2), 'edge_features': (B, E, G)}
    -> x (B, N, D), mask (B, N), edges (B, E, 2), edge features (B, E, G). Edges without features
    get one, which is 1.
    """

    def __init__(self, shape: InputShape, width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(shape.nodes, width)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: dict[str, Tensor]) -> State:
        """Returns a state."""
        mask = inputs["node_mask"]
        x = self.dropout(self.project(inputs["nodes"]))
        features = inputs["edge_features"]
        if not features.shape[-1]:
            features = features.new_ones(*features.shape[:-1], 1)
        return x.masked_fill(~mask[..., None], 0), mask, inputs["edges"], features


class GraphBlock(nn.Module):
    """A pre-norm residual layer: x + dropout(layer(LayerNorm(x), edges)).

    The layer sees the nodes and edges of all graphs in a row, without padding, so that numbers do
    not depend on how far a batch is padded. Dropout sees them padded: its mask belongs to the place
    of a node in its graph.

    Args:
        layer: Computes new node features (nodes, D) from node features, edges (2, edges) and edge
            features (edges, G), as the layers of PyTorch Geometric do.
        width: D.
        dropout: Share of units dropped of what the layer adds.
    """

    def __init__(self, layer: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer
        self.dropout = Dropout(dropout)

    def forward(self, state: State) -> State:
        """Returns a state of the same form."""
        x, mask, edges, features = state
        index, attributes = flatten_edges(mask, edges, features)
        added = self.layer(self.norm(x[mask]), index, attributes)
        change = x.new_zeros(x.shape, dtype=added.dtype)
        change[mask] = added
        return x + self.dropout(change), mask, edges, features


def flatten_edges(mask: Tensor, edges: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the edges between the nodes of all graphs in a row, without padding.

    Args:
        mask: The real nodes (B, N).
        edges: Numbers of nodes within their graph (B, E, 2), negative at padding.
        features: (B, E, G).

    Returns:
        (2, edges) numbers of nodes among the real ones of all graphs, and (edges, G).
    """
    # the place of each node in the row of all real ones
    places = (mask.flatten().cumsum(0) - 1).view(mask.shape)
    real = edges[..., 0] >= 0
    ends = places.unsqueeze(-1).expand(-1, -1, 2).gather(1, edges.clamp(min=0))
    return ends[real].T, features[real]


class GraphFinish(nn.Module):
    """LayerNorm and pooling: a state -> features (B, N, D), with zeros at padding, or (B, D)."""

    def __init__(self, width: int, pool: Pool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pool = pool

    def forward(self, state: State) -> Tensor:
        """Returns features."""
        x, mask = state[0], state[1]
        x = self.norm(x)
        if self.pool == "sum":
            return x.masked_fill(~mask[..., None], 0).sum(1)
        return pool_sequence(x, mask, self.pool)


class MessagePassing(Encoder):
    """A message passing network (Gilmer et al., "Neural message passing for quantum chemistry").

    (ICML 2017.) A projection of the node features, ``depth`` residual layers of PyTorch Geometric,
    LayerNorm and pooling. Needs ``pip install torch_geometric``. The projection is one stage, each
    layer another.

    Args:
        shape: The shape of one sample: a graph.
        width: Width of all layers, and size of the features.
        depth: Number of layers.
        layer: gine, the sum over neighbours of ReLU(x_j + W e), then an MLP (Hu et al., "Strategies
            for pre-training graph neural networks", ICLR 2020); nnconv, a matrix per edge, made
            from its features (Gilmer et al.), whose memory grows with width squared; gat, attention
            over the neighbours with ``heads`` heads (Brody et al., "How attentive are graph
            attention networks?", ICLR 2022).
        heads: Number of attention heads of gat, which divides the width.
        dropout: Share of units dropped behind the projection, and of what each layer adds.
        pool: mean: the mean over the nodes (B, D); sum: their sum, for labels that grow with the
            size of the graph; none: features per node (B, N, D).
    """

    def __init__(
        self,
        shape: InputShape,
        width: int = 128,
        depth: int = 4,
        layer: Layer = "gine",
        heads: int = 4,
        dropout: float = 0.0,
        pool: Pool = "mean",
    ) -> None:
        super().__init__(shape)
        if not shape.nodes:
            raise UserError(
                f"MessagePassing reads graphs, but the data gives {describe(shape)}; molecules "
                "become graphs by --data.features graph"
            )
        if layer not in ("gine", "nnconv", "gat"):
            raise UserError(f"MessagePassing: layer {layer} is none of gine, nnconv, gat")
        if pool not in ("none", "mean", "sum"):
            raise UserError(f"MessagePassing: pool {pool} is none of none, mean, sum")
        check_sizes("MessagePassing", width, depth, heads if layer == "gat" else 1, dropout)

        self.stages = nn.Sequential(GraphStart(shape, width, dropout))
        for _ in range(depth):
            made = make_layer(layer, width, max(shape.edges, 1), heads)
            self.stages.append(GraphBlock(made, width, dropout))
        self.stages[-1] = nn.Sequential(self.stages[-1], GraphFinish(width, pool))
        self.features = width


def make_layer(layer: Layer, width: int, edges: int, heads: int) -> nn.Module:
    """Makes a layer of PyTorch Geometric, (nodes, width) -> (nodes, width).

    Args:
        layer: Which one.
        width: Width of node features.
        edges: Number of features of an edge.
        heads: Number of attention heads.

    Raises:
        UserError: PyTorch Geometric is not installed.
    """
    try:
        # it scripts some of its classes when it is imported, which torch warns of
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_geometric.nn import GATv2Conv, GINEConv, NNConv
    except ImportError:
        raise UserError(
            "MessagePassing needs PyTorch Geometric: pip install torch_geometric"
        ) from None

    if layer == "gat":
        return GATv2Conv(width, width // heads, heads, edge_dim=edges)
    if layer == "nnconv":
        to_matrix = nn.Linear(width, width * width)
        per_edge = nn.Sequential(nn.Linear(edges, width), nn.GELU(), to_matrix)
        return NNConv(width, width, per_edge, aggr="mean")
    mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
    return GINEConv(mlp, edge_dim=edges)
