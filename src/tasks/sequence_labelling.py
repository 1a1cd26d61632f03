"""One of several classes for each token of a sentence."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.classification import Classification
from src.tasks.crf import (
    CrfHead,
    compute_pair_marginals,
    crf_losses,
    fill_padding,
    find_best_paths,
    mix_chains,
    unpack,
)
from src.tasks.head import Head
from src.tasks.labels import MISSING
from src.tasks.spans import (
    SCHEMES,
    Scheme,
    SpanCounts,
    compute_span_metrics,
    find_bad_tag,
    look_like_tags,
)

SPAN_METRICS = ("precision", "recall", "f1")


@dataclass(frozen=True, kw_only=True)
class SequenceLabelling(Classification):
    """Cross-entropy over C classes of each token: targets (B, S), outputs (B, S, C).

    A token without label, and one that only pads a short sentence, is -100. Accuracy and its kin
    are those of tokens.

    Classes O, B-X and I-X make spans, such as the names in a sentence. Precision, recall and F1 of
    spans are computed from the numbers of gold, predicted and correct spans over all sentences, a
    span being correct where begin, end and type are. They are logged under the name of the
    definition of a span, as ``span_f1_iob2_strict``. Against a gold B-P I-P, a predicted I-P I-P
    is no span in IOB2-strict (as seqeval's ``mode='strict', scheme=IOB2``), and a correct one in
    conlleval (seqeval's default, the script of the CoNLL shared tasks). Tokens without label are
    left out before spans are read.

    With ``crf`` the classes of a sentence are predicted together, by a linear-chain conditional
    random field: outputs are (B, S, C x C) log potentials of a class behind another, see
    :mod:`src.tasks.crf`. The loss of a sentence is -log p(labels), spread evenly over its labelled
    tokens, where missing labels are summed out; the most probable path is what is predicted. Time
    and memory grow with C^2: 17 classes take 1 kB a token, 49 take 10 kB.

    Attributes:
        crf: Whether the classes of a sentence are predicted together.
        scheme: IOB2-strict or conlleval. When None it is IOB2-strict where all classes are O, B-X
            or I-X, and there are no spans elsewhere.
        monitor: The metric that counts for model selection; empty: F1 of the spans, and accuracy
            where there are none.
    """

    not_in_loss: ClassVar[tuple[str, ...]] = ("classes", "scheme")

    crf: bool = False
    scheme: Scheme | None = None
    monitor: str = ""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if self.scheme is not None and self.scheme not in SCHEMES:
            raise UserError(f"{kind}: scheme '{self.scheme}' is none of {', '.join(SCHEMES)}")
        if self.pooled:
            raise UserError(
                f"{kind}: pooled reads one vector a sentence, and each token has a label: use "
                "Classification for the label of a sentence"
            )
        if self.crf and (self.label_smoothing or self.class_weights):
            setting = "label_smoothing" if self.label_smoothing else "class_weights"
            raise UserError(
                f"{kind}: {setting} is of the loss of single tokens, and crf predicts sentences as "
                "a whole: leave out one of them"
            )
        # what follows from the classes is settled once they are known
        if self.classes:
            if self.scheme is None and look_like_tags(self.classes):
                object.__setattr__(self, "scheme", SCHEMES[0])
            if not self.monitor:
                monitor = self._span_metric("f1") if self.scheme else "accuracy"
                object.__setattr__(self, "monitor", monitor)
            bad = find_bad_tag(self.classes) if self.scheme else None
            if bad is not None:
                raise UserError(
                    f"{kind}: scheme {self.scheme} reads classes O, B-X and I-X, and there is a "
                    f"class '{bad}': leave the scheme out"
                )
        super().__post_init__()

    # -- the loss ----------------------------------------------------------------------------------
    @property
    def out_features(self) -> int:
        return len(self.classes) ** (2 if self.crf else 1)

    def head(self, features: int) -> Head:
        if not self.crf:
            return super().head(features)
        return CrfHead(features, len(self.classes), depth=self.depth, width=self.width)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if not self.crf:
            return super().losses(outputs, targets)
        # a head of its own class runs by itself: behind the tokens there is one task
        rows, tokens = len(targets), targets[:1].numel()
        psi = unpack(outputs.reshape(rows, tokens, self.out_features))
        labels = targets.reshape(rows, tokens)
        if not psi.requires_grad:
            # predictions are NaN at padding; where there is a label, NaN is a fault to be seen
            unlabelled = (labels == MISSING)[..., None, None]
            psi = torch.where(unlabelled, fill_padding(psi), psi)
        return crf_losses(psi, labels).view_as(targets)

    # -- metrics -----------------------------------------------------------------------------------
    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]  # spans follow the scheme
        if self.scheme is None:
            return Classification.metric_names
        spans = [self._span_metric(name) for name in SPAN_METRICS]
        return (*Classification.metric_names, *spans)

    @property
    def monitors(self) -> tuple[str, ...]:
        if self.classes:
            return super().monitors
        # classes that are not known yet may or may not make spans
        later = [span_metric(name, scheme) for scheme in SCHEMES for name in SPAN_METRICS]
        return ("", *super().monitors, *later)

    def _span_metric(self, name: str) -> str:
        assert self.scheme is not None
        return span_metric(name, self.scheme)

    def build_metrics(self) -> MetricCollection:
        metrics = super().build_metrics()
        if self.scheme is not None:
            metrics.add_metrics({"spans": SpanCounts(self.classes, self.scheme)})
        return metrics

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        measured = super().measure(outputs, targets)
        if self.scheme is None:
            return measured
        # to a reference without a network, each token is a row of its own
        shape = targets.shape if targets.ndim > 1 else (len(targets), 1)
        predicted = measured["preds"].view(shape)
        return measured | {"predicted_tags": predicted, "gold_tags": targets.view(shape)}

    def measure_weights(self, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return super().measure_weights(targets, weights) | {"sentence_weights": weights}

    def derive(self, computed: dict[str, Any]) -> dict[str, Any]:
        derived = super().derive(computed)
        if "spans" not in derived:
            return derived
        spans = compute_span_metrics(derived["spans"])
        return derived | {self._span_metric(name): value for name, value in spans.items()}

    def describe_score(self) -> str:
        if self.scheme is not None and self.monitor == self._span_metric("f1"):
            return f"F1 of spans ({self.scheme})"
        return super().describe_score()

    # -- predictions -------------------------------------------------------------------------------
    def predict(self, outputs: Tensor) -> Tensor:
        """Turns outputs (B, S, O) into positions in ``classes`` (B, S).

        Outputs (N, O) are those of sentences of one token.
        """
        if not self.crf:
            return super().predict(outputs)
        if outputs.ndim == 2:
            return self.predict(outputs[:, None]).squeeze(1)
        return find_best_paths(fill_padding(unpack(outputs)))

    @property
    def _has_probabilities(self) -> bool:
        return not self.crf

    @property
    def _predicts_by_probability(self) -> bool:
        return not self.crf

    def mix(self, outputs_M: Tensor) -> Tensor:
        """Returns the outputs that predict the mean of the probabilities.

        They are those of each token's classes, with ``crf`` those of each two neighbours' classes.
        """
        if not self.crf:
            return super().mix(outputs_M)
        mixed = mix_chains(fill_padding(unpack(outputs_M))).flatten(-2)
        return mixed.masked_fill(outputs_M.isnan().any(0), float("nan"))

    def average(self, outputs_M: Tensor) -> Tensor:
        if not self.crf:
            return super().average(outputs_M)
        # potentials belong together in a whole sentence
        first = outputs_M[0]
        agree = ((outputs_M == first) | first.isnan()).all(0).flatten(1).all(1)
        mixed = self.mix(outputs_M.double()).to(first.dtype)
        return torch.where(agree[:, None, None], first, mixed)

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the predicted classes' probabilities, mean over the tokens."""
        if self.crf:
            psi_M = fill_padding(unpack(outputs_M.double()))
            probabilities_M = torch.stack([compute_pair_marginals(psi).sum(-2) for psi in psi_M])
        else:
            probabilities_M = outputs_M.double().softmax(-1)
        classes = self.predict(mixed)[..., None].expand(*outputs_M.shape[:-1], 1)
        chosen_M = probabilities_M.gather(-1, classes).squeeze(-1)
        chosen_M = chosen_M.masked_fill(mixed.isnan().any(-1), float("nan"))
        return {"spread": chosen_M.std(0, correction=0).nanmean(-1).tolist()}

    # -- people ------------------------------------------------------------------------------------
    def decode(self, outputs: Tensor) -> dict[str, Any]:
        """Returns the classes of each sentence in one text, from outputs (B, S, O).

        Outputs at padding are NaN.
        """
        real = ~outputs.isnan().any(-1)
        return {"": self._join(self.predict(outputs), real)}

    def decode_targets(self, targets: Tensor) -> dict[str, Any]:
        """Returns the known labels of each sentence in one text, None where there is none."""
        return {"": [text or None for text in self._join(targets, targets >= 0)]}

    def _join(self, positions: Tensor, real: Tensor) -> list[str]:
        """Joins the class names at real positions (B, S) by spaces."""
        texts = []
        for row, mask in zip(positions.tolist(), real.tolist(), strict=True):
            kept = [str(self.classes[k]) for k, is_real in zip(row, mask, strict=True) if is_real]
            texts.append(" ".join(kept))
        return texts


def span_metric(name: str, scheme: str) -> str:
    """Returns the key of a metric of spans: span_f1_iob2_strict."""
    return f"span_{name}_{scheme.lower().replace('-', '_')}"
