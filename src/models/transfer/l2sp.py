"""The squared distance to the weights that a run started from."""

from src.models.transfer.anchor import Anchor


class L2SP(Anchor):
    """s/2 ||theta - theta0||^2 over the weights that came from the source.

    See Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with
    convolutional networks", ICML 2018. Their second term, on fresh weights, is the optimizer's
    weight decay.

    Args:
        strength: s.
    """

    def __init__(self, strength: float = 0.01) -> None:
        super().__init__(strength)
