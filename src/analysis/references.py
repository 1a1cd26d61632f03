"""References that are no networks: the best constant, linear models, and gradient boosting.

Each returns the outputs that a head would, so that a task's own code computes every loss, metric
and threshold. Statistics come from training rows; validation rows choose the penalty of a linear
model and the number of trees. A row counts for a task if its label is known there.
"""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn

from src.batch import InputShape
from src.errors import UserError, suggest_or_list

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.compose import ColumnTransformer

Matrix = Union[np.ndarray, "csr_matrix"]
# returns (N, K) log probabilities of classes, or (N,) numbers
Predictor = Callable[[Matrix], np.ndarray]
M = TypeVar("M")

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)
USUAL_PENALTY = 1.0  # without validation labels
MOST_STEPS = 2000  # of the solver of logistic regression
MOST_TREES = 1000  # for each class
USUAL_TREES = 100  # without validation labels
PATIENCE = 10  # trees
MOST_CATEGORIES = 254  # of a column, the frequent ones; the others are one


@dataclass(frozen=True)
class Labelled:
    """Rows whose label is known.

    Attributes:
        x: (N, F) inputs, as a reference has encoded them.
        y: (N,) classes, as numbers from 0, or numbers.
        weight: (N,) factors on the losses of the rows.
    """

    x: Matrix
    y: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def keep(self, mask: np.ndarray) -> "Labelled":
        """Returns some of the rows."""
        if mask.all():
            return self
        return Labelled(self.x[mask], self.y[mask], self.weight[mask])


class Reference(ABC):
    """A way to predict a column of classes or of numbers.

    Args:
        shape: The shape of the inputs.
        seed: Seed of whatever is drawn.

    Attributes:
        choices: {column: what validation rows have chosen}, once columns are fitted.
    """

    chooses: ClassVar[str] = ""  # the word for a choice

    def __init__(self, shape: InputShape, seed: int) -> None:
        self.shape = shape
        self.seed = seed
        self.choices: dict[str, float] = {}

    @abstractmethod
    def classify(self, column: str, train: Labelled, val: Labelled) -> Predictor:
        """Fits a model of classes.

        Args:
            column: The column's name, for ``choices``.
            train: Rows of at least two classes.
            val: Rows of classes that ``train`` has, or none.

        Returns:
            Maps encoded inputs to log probabilities of the classes of ``train``, in their order.
        """

    @abstractmethod
    def regress(self, column: str, train: Labelled, val: Labelled, absolute: bool) -> Predictor:
        """Fits a model of numbers.

        Args:
            column: The column's name, for ``choices``.
            train: Rows.
            val: Rows, or none.
            absolute: Whether absolute errors count, and not squared ones.
        """

    def describe_choices(self, most: int = 8) -> list[str]:
        """Describes what validation rows have chosen, in a line; no line where they have not."""
        shown = [f"{column} {value:g}" for column, value in self.choices.items()]
        if not shown:
            return []
        more = f" and {len(shown) - most} more" if len(shown) > most else ""
        name = type(self).__name__.lower()
        return [
            f"{name}: {self.chooses} {', '.join(shown[:most])}{more}, chosen on validation rows"
        ]


class Constant(Reference):
    """The best constant: shares of classes, the mean, or the median where absolute errors count."""

    reads_inputs = False

    def classify(self, column: str, train: Labelled, val: Labelled) -> Predictor:
        _, place = np.unique(train.y, return_inverse=True)
        shares = np.bincount(place, weights=train.weight) / train.weight.sum()
        return repeat(np.log(shares))

    def regress(self, column: str, train: Labelled, val: Labelled, absolute: bool) -> Predictor:
        if absolute:
            return repeat(find_median(train.y, train.weight))
        return repeat(np.average(train.y, weights=train.weight))


def find_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Returns the median of values with weights above 0; of two it is their middle."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    half = below[-1] / 2
    first, last = np.searchsorted(below, half, "left"), np.searchsorted(below, half, "right")
    return float((values[order][first] + values[order][last]) / 2)


class Learner(Reference):
    """A reference that reads inputs."""

    def learn_inputs(self, x: np.ndarray) -> None:
        """Learns from training rows (N, F + C), numbers and then codes, how inputs are encoded.

        Raises:
            UserError: They hold a number that is not finite.
        """
        refuse_non_finite(x)
        self.encoder = self.make_encoder(*split_columns(self.shape)).fit(x.astype(np.float64))

    def encode(self, x: np.ndarray) -> Matrix:
        """Encodes inputs (N, F + C)."""
        encoded: Matrix = self.encoder.transform(x.astype(np.float64))
        return encoded

    @abstractmethod
    def make_encoder(self, numbers: list[int], codes: list[int]) -> "ColumnTransformer":
        """Returns an encoder that is not fitted yet.

        Args:
            numbers: Places of the numbers among the columns.
            codes: Places of the codes of categories.
        """


class Linear(Learner):
    """Ridge and logistic regression, on standardised numbers and one-hot categories.

    The penalty is lambda |w|^2 on the sum of squared errors, and lambda |w|^2 / 2 on the sum of
    the log losses. Each column has the one of ``PENALTIES`` with the lowest loss on its validation
    rows.
    """

    chooses = "penalty"

    def make_encoder(self, numbers: list[int], codes: list[int]) -> "ColumnTransformer":
        from sklearn.compose import ColumnTransformer
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        one_hot = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES + 1
        )
        return ColumnTransformer(
            [("numbers", StandardScaler(), numbers), ("codes", one_hot, codes)]
        )

    def classify(self, column: str, train: Labelled, val: Labelled) -> Predictor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        seen = np.unique(train.y)
        model = LogisticRegression(max_iter=MOST_STEPS, warm_start=True)
        found = {}
        # each fit begins where the one before, with a stronger penalty, has ended
        for penalty in PENALTIES:
            model.set_params(C=1 / penalty)
            with warnings.catch_warnings():
                # said below, of the one that counts
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(train.x, train.y, train.weight)
            found[penalty] = copy.deepcopy(model)

        def log_loss(fitted: LogisticRegression) -> float:
            scores = log_probabilities(fitted.decision_function(val.x))
            chosen = scores[np.arange(len(val)), np.searchsorted(seen, val.y)]
            return float(-(val.weight * chosen).sum())

        best = self._choose(column, found, val, log_loss)
        if best.n_iter_.max() >= MOST_STEPS:
            rank_zero_warn(f"linear: {column} has not converged in {MOST_STEPS} steps")
        return lambda x: log_probabilities(best.decision_function(x))

    def regress(self, column: str, train: Labelled, val: Labelled, absolute: bool) -> Predictor:
        from sklearn.linear_model import Ridge

        found = {}
        for penalty in PENALTIES:
            found[penalty] = Ridge(penalty, tol=1e-8).fit(train.x, train.y, train.weight)

        def error(fitted: Ridge) -> float:
            differences = np.abs(fitted.predict(val.x) - val.y)
            return float((val.weight * (differences if absolute else differences**2)).sum())

        return self._choose(column, found, val, error).predict

    def _choose(
        self, column: str, found: Mapping[float, M], val: Labelled, loss: Callable[[M], float]
    ) -> M:
        """Returns the model with the lowest loss on validation rows; of equals the simplest."""
        if not len(val):
            return found[USUAL_PENALTY]
        best = min(found, key=lambda penalty: loss(found[penalty]))
        self.choices[column] = best
        return found[best]


class Boosting(Learner):
    """Histogram gradient boosting of scikit-learn, with its settings but for the number of trees.

    Trees are added until ten more have not lowered the loss on the validation rows of this project,
    and the trees up to the lowest loss count. Categories are native ones. The seed matters above
    200,000 rows alone, where scikit-learn draws the rows that bound its bins.
    """

    chooses = "trees"

    def make_encoder(self, numbers: list[int], codes: list[int]) -> "ColumnTransformer":
        from sklearn.compose import ColumnTransformer
        from sklearn.preprocessing import OrdinalEncoder

        # a category that training does not know is a missing value
        ordinal = OrdinalEncoder(
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            max_categories=MOST_CATEGORIES + 1,
        )
        return ColumnTransformer([("numbers", "passthrough", numbers), ("codes", ordinal, codes)])

    def classify(self, column: str, train: Labelled, val: Labelled) -> Predictor:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(**self._settings(val))
        trees = self._fit(column, model, train, val)
        if not trees:
            return Constant(self.shape, self.seed).classify(column, train, val)
        return lambda x: log_probabilities(take(model.staged_decision_function(x), trees))

    def regress(self, column: str, train: Labelled, val: Labelled, absolute: bool) -> Predictor:
        from sklearn.ensemble import HistGradientBoostingRegressor

        loss = "absolute_error" if absolute else "squared_error"
        model = HistGradientBoostingRegressor(loss, **self._settings(val))
        trees = self._fit(column, model, train, val)
        if not trees:
            return Constant(self.shape, self.seed).regress(column, train, val, absolute)
        return lambda x: take(model.staged_predict(x), trees)

    def _settings(self, val: Labelled) -> dict[str, Any]:
        """Returns the settings that models of classes and of numbers have in common."""
        numbers, codes = split_columns(self.shape)
        settings: dict[str, Any] = {"random_state": self.seed, "early_stopping": False}
        if codes:
            settings["categorical_features"] = [False] * len(numbers) + [True] * len(codes)
        if not len(val):
            return settings | {"max_iter": USUAL_TREES}
        stopping = {"early_stopping": True, "n_iter_no_change": PATIENCE}
        return settings | stopping | {"max_iter": MOST_TREES}

    def _fit(self, column: str, model: Any, train: Labelled, val: Labelled) -> int:
        """Fits a model; returns the number of trees that count."""
        if not len(val):
            model.fit(train.x, train.y, train.weight)
            return USUAL_TREES
        theirs = {"X_val": val.x, "y_val": val.y, "sample_weight_val": val.weight}
        model.fit(train.x, train.y, train.weight, **theirs)

        # the first value is of no tree at all
        trees = int(model.validation_score_.argmax())
        self.choices[column] = trees
        return trees


METHODS: dict[str, type[Reference]] = {
    kind.__name__.lower(): kind for kind in (Constant, Linear, Boosting)
}


def find_method(name: str, flag: str) -> type[Reference]:
    """Returns the reference of a name.

    Args:
        name: Its name.
        flag: The flag that has named it, for messages.

    Raises:
        UserError: There is none, or a package is missing.
    """
    if name not in METHODS:
        raise UserError(f"{flag} {name} is unknown: {suggest_or_list(name, METHODS)}")
    kind = METHODS[name]
    if issubclass(kind, Learner) and find_spec("sklearn") is None:
        raise UserError(f"{flag} {name} needs scikit-learn: pip install 'scikit-learn>=1.7'")
    return kind


def split_columns(shape: InputShape) -> tuple[list[int], list[int]]:
    """Returns the places of numbers and of codes among the columns of encoded inputs."""
    numbers = int(np.prod(shape.dense)) if shape.dense else 0
    return list(range(numbers)), list(range(numbers, numbers + len(shape.categories)))


def refuse_non_finite(x: np.ndarray) -> None:
    """Refuses training rows (N, F) that hold no finite number.

    Raises:
        UserError: There are some.
    """
    wrong = np.argwhere(~np.isfinite(x))
    if len(wrong):
        row, column = wrong[0]
        raise UserError(
            f"training row {row} holds {x[row, column]} as input {column}: a reference takes "
            "finite numbers alone"
        )


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """Turns scores (N, K), or (N,) of the second of two classes, into log probabilities (N, K)."""
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], 1)
    return torch.from_numpy(scores).double().log_softmax(-1).numpy()


def repeat(values: np.ndarray | float) -> Predictor:
    """Returns a predictor of the same values for each row."""
    constant = np.asarray(values)
    return lambda x: np.broadcast_to(constant, (x.shape[0], *constant.shape))


def take(stages: Iterator[np.ndarray], number: int) -> np.ndarray:
    """Returns the predictions of a number of trees."""
    return next(islice(stages, number - 1, None))
