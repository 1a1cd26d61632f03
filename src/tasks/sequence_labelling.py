"""One of several classes for each token of a sentence."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from src.errors import UserError
from src.tasks.classification import Classification
from src.tasks.ensembling import name_spread
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

    Attributes:
        scheme: IOB2-strict or conlleval. When None it is IOB2-strict where all classes are O, B-X
            or I-X, and there are no spans elsewhere.
        monitor: The metric that counts for model selection; empty: F1 of the spans, and accuracy
            where there are none.
    """

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
        predicted = measured["preds"].view_as(targets)
        return measured | {"predicted_tags": predicted, "gold_tags": targets}

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

    def measure_spread(self, outputs_M: Tensor, mixed: Tensor) -> dict[str, Any]:
        """Returns that of the predicted classes' probabilities, mean over the tokens."""
        classes = self.predict(mixed)[..., None].expand(*outputs_M.shape[:-1], 1)
        chosen = outputs_M.double().softmax(-1).gather(-1, classes).squeeze(-1)
        spread = chosen.std(0, correction=0)
        return name_spread(spread, ())


def span_metric(name: str, scheme: str) -> str:
    """Returns the key of a metric of spans: span_f1_iob2_strict."""
    return f"span_{name}_{scheme.lower().replace('-', '_')}"
