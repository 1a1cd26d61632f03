"""MAML whose inner loop changes the head alone."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.func import functional_call

from src.models.heads import HALVES
from src.models.meta.episodes import Episode, Inputs, flatten_rows, join_rows
from src.models.meta.inner_loop import Parameters
from src.models.meta.maml import MAML, Predictor

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel
    from src.models.network import MultiTaskNetwork


class ANIL(MAML):
    """MAML whose inner loop changes the head alone: almost no inner loop.

    (Raghu et al., "Rapid learning or feature reuse? Towards understanding the effectiveness of
    MAML", ICLR 2020.) The encoder f is trained by the outer loss alone. It reads all rows of the
    batch once; the inner loop then has the features z = f(x) for its inputs:

    w_{i+1} = w_i - alpha grad L_S(w_i; f(x_S)), minimise L_Q(w_k; f(x_Q)) in w_0 and f.

    Works with every encoder, also where MAML cannot run several episodes at once. The settings are
    those of MAML.
    """

    def make_predictor(self, network: "MultiTaskNetwork") -> tuple[Parameters, Predictor]:
        start: Parameters = dict(network.heads.named_parameters())

        def predict(parameters: Parameters, features: Inputs) -> Tensor:
            assert isinstance(features, Tensor)
            outputs: Tensor = functional_call(network.heads, parameters, ({self.task: features},))[
                0
            ]
            return outputs

        return start, predict

    def read(self, network: "MultiTaskModel", inputs: Inputs) -> Inputs:
        """Returns the features (R, ..., D) of inputs (R, ...)."""
        return network.runner.features(network, inputs)[self.task]

    def read_episodes(self, network: "MultiTaskModel", episodes: Episode) -> tuple[Inputs, Inputs]:
        """Returns the features of support rows (E, S, ..., D) and of query rows (E, Q, ..., D)."""
        return encode_episodes(network, episodes, self.task)


def encode_episodes(
    network: "MultiTaskModel", episodes: Episode, task: str
) -> tuple[Tensor, Tensor]:
    """Runs the encoder once on all rows of all episodes.

    Returns:
        The features of support rows (E, S, ..., D) and of query rows (E, Q, ..., D), in fp32 where
        the encoder has less.
    """
    rows = join_rows(episodes.support, episodes.query)
    z = network.runner.features(network, flatten_rows(rows))[task]

    # small sets of rows, whose means and steps would drown in 16 bits
    by_episode = (z.float() if z.dtype in HALVES else z).unflatten(0, (episodes.count, -1))
    supports = episodes.labels.shape[1]
    return by_episode[:, :supports], by_episode[:, supports:]
