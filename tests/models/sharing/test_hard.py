import torch
from torch import nn

from src.batch import InputShape
from src.models.encoders import Encoder
from src.models.sharing import HardSharing


class Double(Encoder):
    """Twice its input plus a learned number."""

    def __init__(self):
        super().__init__(InputShape((3,)))
        self.stages = nn.Sequential(nn.Linear(3, 3))
        nn.init.eye_(self.stages[0].weight)
        with torch.no_grad():
            self.stages[0].weight.mul_(2)
        nn.init.zeros_(self.stages[0].bias)
        self.features = 3


def test_every_task_gets_the_same_features_of_one_encoder():
    made = []
    sharing = HardSharing(lambda: made.append(Double()) or made[-1], ["a", "b"])
    features = sharing(torch.tensor([[1.0, 2.0, 3.0]]))
    assert len(made) == 1
    assert list(features) == ["a", "b"]
    assert features["a"] is features["b"]
    assert features["a"].tolist() == [[2, 4, 6]]
    assert sharing.feature_sizes == {"a": 3, "b": 3}
    assert [id(p) for p in sharing.shared_parameters()] == [id(p) for p in made[0].parameters()]
    assert sharing.penalty() is None
