"""Macro F1: the mean over classes of the harmonic mean of precision and recall.

What: every class counts the same, however many targets it has.
Equation: (1/|C|) Σ_{k in C} 2 tp_k / (predicted_k + true_k), C the classes that occur, as a target
or as an answer.
When it misleads: classes of a few targets, whose noise counts as much as a large class.
What it costs: three numbers a class; no table of K² numbers, so a vocabulary is as good as ten
classes, and no count whose size the device must tell first.
Reference: van Rijsbergen, Information Retrieval, 1979; averaged as in Yang & Liu, A re-examination
of text categorization methods, SIGIR 1999.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from progtrain.metrics.counting import Counting
from progtrain.metrics.tally import Answers, Counted


@dataclass(frozen=True)
class MacroF1(Counting):
    """In [0, 1]."""

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        y_N, found_N = answers.y, answers.logits.argmax(-1)
        ones_N = torch.ones_like(y_N)
        return {
            "right": _by_class(y_N, (found_N == y_N).long(), answers.classes),
            "found": _by_class(found_N, ones_N, answers.classes),
            "true": _by_class(y_N, ones_N, answers.classes),
        }

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float:
        right_K, found_K, true_K = (states[n].double() for n in ("right", "found", "true"))
        both_K = found_K + true_K
        f1_K = 2 * right_K / both_K.clamp(min=1)
        return float(f1_K.sum() / (both_K > 0).sum())


def _by_class(class_N: Tensor, number_N: Tensor, classes: int) -> Tensor:
    """The sum of the numbers of every class (K,)."""
    zeros_K = torch.zeros(classes, dtype=torch.int64, device=class_N.device)
    return zeros_K.scatter_add_(0, class_N, number_N)
