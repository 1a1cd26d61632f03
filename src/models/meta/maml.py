"""Model-agnostic meta-learning."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from src.errors import UserError
from src.models.meta.base import Meta, steps_to_report
from src.models.meta.episodes import Episode, Inputs
from src.models.meta.inner_loop import Parameters, Rates, descend, run_each
from src.tasks import Task

if TYPE_CHECKING:
    from src.models.module import MultiTaskModel
    from src.models.network import MultiTaskNetwork

# parameters and inputs (R, ...) of one episode -> outputs (R, K, O)
Predictor = Callable[[Parameters, Inputs], Tensor]


class MAML(Meta):
    """A start from which a few steps of gradient descent on the support rows suffice.

    With the support loss L_S and the query loss L_Q of an episode, theta_0 = theta and
    theta_{i+1} = theta_i - alpha grad L_S(theta_i), the step minimises the sum of L_Q(theta_k) in
    theta. (Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep
    networks", ICML 2017.) Its gradient holds second derivatives of L_S; the first-order method
    takes the inner gradients for constants. With ``learn_rates``, alpha is a parameter that is
    learnt, one for each tensor of weights (after Li et al., "Meta-SGD", arXiv 1707.09835, which
    learns one for each weight).

    Args:
        tasks: {name: task}.
        inner_lr: alpha, the rate of the inner loop.
        inner_steps: k, the number of inner steps in training. 0 trains one network for all
            episodes alike, the baseline.
        test_steps: Number of inner steps in validation, test and prediction; None: as in training.
        report_steps: Numbers of inner steps whose scores the test reports, too.
        first_order: Whether inner gradients are constants: less memory and time.
        learn_rates: Whether rates are learnt.
        batched: Whether the episodes of a batch run as one program, by torch.func.vmap; false for
            encoders that it cannot batch.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        test_steps: int | None = None,
        report_steps: list[int] | None = None,
        first_order: bool = False,
        learn_rates: bool = False,
        batched: bool = True,
    ) -> None:
        super().__init__(tasks)
        if not 0 < inner_lr < float("inf"):
            raise UserError(f"model.meta.inner_lr is {inner_lr}; it must be a number above 0")
        for key, value in (("inner_steps", inner_steps), ("test_steps", test_steps or 0)):
            if value < 0:
                raise UserError(f"model.meta.{key} is {value}; it must be at least 0")
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.test_steps = inner_steps if test_steps is None else test_steps
        self.report_steps = [0, 1] if report_steps is None else report_steps
        self.first_order = first_order
        self.learn_rates = learn_rates
        self.batched = batched
        self.rates: nn.Parameter | None = None
        if learn_rates and not inner_steps:
            raise UserError("model.meta.learn_rates needs inner steps: set inner_steps 1 or more")

    def prepare(self, network: "MultiTaskNetwork") -> None:
        """Makes the rates, where they are learnt."""
        if self.learn_rates and self.rates is None:
            start, _ = self.make_predictor(network)
            self.rates = nn.Parameter(torch.full((len(start),), self.inner_lr))

    def check(self, network: "MultiTaskModel") -> None:
        super().check(network)
        if not self.batched:
            return
        try:
            self.try_out(network)
        except Exception as error:
            reason = " ".join(str(error).split())[:150]
            encoder = type(network.sharing.encoder).__name__
            raise UserError(
                f"model.meta {type(self).__name__} cannot run {encoder} on several episodes at "
                f"once ({reason}): set --model.meta.batched false"
            ) from None

    def try_out(self, network: "MultiTaskModel") -> None:
        """Runs the predictor batched over two episodes of example rows."""
        start, predict = self.make_predictor(network)
        inputs = self.read(network, network.input_shape.example(4))
        if isinstance(inputs, Tensor):
            pairs: Inputs = inputs.view(2, 2, *inputs.shape[1:])
        else:
            pairs = {name: tensor.view(2, 2, *tensor.shape[1:]) for name, tensor in inputs.items()}
        detached = {name: parameter.detach() for name, parameter in start.items()}

        def differentiate(parameters: Parameters, rows: Inputs) -> list[Tensor]:
            gradients = grad(lambda these: predict(these, rows).sum())(parameters)
            return list(gradients.values())

        run_each(differentiate, (detached,), pairs, batched=True)

    # -- the network as a function of its parameters -------------------------------------------
    def make_predictor(self, network: "MultiTaskNetwork") -> tuple[Parameters, Predictor]:
        """Returns the parameters that the inner loop changes, and the network as their function."""
        sharing = {n: p for n, p in network.sharing.named_parameters() if p.requires_grad}
        heads = {n: p for n, p in network.heads.named_parameters() if p.requires_grad}
        start: Parameters = {f"sharing.{name}": p for name, p in sharing.items()}
        start |= {f"heads.{name}": p for name, p in heads.items()}

        def predict(parameters: Parameters, inputs: Inputs) -> Tensor:
            of_sharing = {name: parameters[f"sharing.{name}"] for name in sharing}
            of_heads = {name: parameters[f"heads.{name}"] for name in heads}
            features = functional_call(network.sharing, of_sharing, (inputs,))
            outputs: Tensor = functional_call(network.heads, of_heads, (features,))[0]
            return outputs

        return start, predict

    def read(self, network: "MultiTaskModel", inputs: Inputs) -> Inputs:
        """Returns of inputs (R, ...) what the predictor reads."""
        return inputs

    def rates_of(self, start: Parameters) -> Rates:
        """Returns the inner rate of each parameter."""
        if self.rates is None:
            return dict.fromkeys(start, self.inner_lr)
        return dict(zip(start, self.rates.unbind(), strict=True))

    def support_loss(self, network: "MultiTaskNetwork", outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean loss of the support rows of one episode, 0 if none has a label."""
        sums, counts = network.heads.loss_sums([outputs], {self.task: labels})
        return (sums / counts.clamp(min=1)).sum()

    # -- learning ----------------------------------------------------------------------------------
    def learn(self, network: "MultiTaskModel", episodes: Episode) -> dict[int, Tensor]:
        last = self.inner_steps if network.training else self.test_steps
        reported = [last] if network.training else steps_to_report(self.report_steps, last)
        start, predict = self.make_predictor(network)
        if not network.training:
            start = {name: parameter.detach() for name, parameter in start.items()}
        support, query = self.read_episodes(network, episodes)

        def learn_one(
            parameters: Parameters, rates: Rates, rows: Inputs, labels: Tensor, others: Inputs
        ) -> list[Tensor]:
            def loss(these: Parameters) -> Tensor:
                return self.support_loss(network, predict(these, rows), labels)

            path = descend(loss, parameters, rates, last, self.first_order)
            return [predict(these, others) for step, these in enumerate(path) if step in reported]

        rates = {name: torch.as_tensor(rate) for name, rate in self.rates_of(start).items()}
        outputs = run_each(
            learn_one, (start, rates), support, episodes.labels, query, batched=self.batched
        )
        return dict(zip(reported, outputs, strict=True))

    def read_episodes(self, network: "MultiTaskModel", episodes: Episode) -> tuple[Inputs, Inputs]:
        """Returns of support rows (E, S, ...) and query rows (E, Q, ...) what predictors read."""
        return episodes.support, episodes.query
