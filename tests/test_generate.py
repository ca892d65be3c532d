"""Continuing a text: likeliest tokens, draws that a seed repeats, and a window that slides."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from progtrain.errors import ConfigError, SettingError
from progtrain.generate import generate
from progtrain.models.gpt import GPT

VOCABULARY = 7


class Counting(nn.Module):
    """After token t comes t + 1 most likely, then t + 2, the others not at all; notes lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.modes: list[bool] = []

    def forward(self, x_BT: Tensor) -> Tensor:
        self.lengths.append(x_BT.shape[1])
        self.modes.append(self.training)
        logits = torch.full((*x_BT.shape, VOCABULARY), -30.0)
        logits.scatter_(2, (x_BT[..., None] + 1) % VOCABULARY, 1.0)
        return logits.scatter_(2, (x_BT[..., None] + 2) % VOCABULARY, 0.0)


def _made(**more: object) -> list[int]:
    model = more.pop("model", None) or Counting()
    return generate(model, torch.tensor([3]), 40, **more).tolist()  # type: ignore[arg-type]


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _steps(tokens: list[int]) -> list[int]:
    return [(b - a) % VOCABULARY for a, b in pairwise(tokens)]


def test_at_temperature_0_the_likeliest_token_follows() -> None:
    assert _made(temperature=0) == [(3 + i) % VOCABULARY for i in range(41)]


def test_draws_follow_the_probabilities_and_repeat_with_the_seed() -> None:
    drawn = _made(generator=_seeded())
    assert set(_steps(drawn)) == {1, 2}
    assert drawn == _made(generator=_seeded()) != _made(generator=_seeded(1))
    long = generate(Counting(), torch.tensor([0]), 4000, generator=_seeded()).tolist()
    share = _steps(long).count(1) / 4000
    assert abs(share - 0.731) < 0.03, "e / (e + 1)"
    hot = generate(Counting(), torch.tensor([0]), 4000, 3.0, generator=_seeded()).tolist()
    assert abs(_steps(hot).count(1) / 4000 - 0.583) < 0.03, "less sure when it is hot"


def test_top_k_leaves_the_others_out() -> None:
    assert set(_steps(_made(top_k=1, generator=_seeded()))) == {1}
    assert set(_steps(_made(top_k=2, temperature=50.0, generator=_seeded()))) == {1, 2}
    assert len(set(_steps(_made(temperature=50.0, generator=_seeded())))) > 2
    everything = _made(top_k=VOCABULARY + 1, generator=_seeded())
    assert everything == _made(generator=_seeded())


def test_a_model_sees_no_more_than_its_context() -> None:
    model = Counting()
    generate(model, torch.tensor([1, 2]), 5, 0.0, context=4)
    assert model.lengths == [2, 3, 4, 4, 4]
    model = Counting()
    model.context = 3
    generate(model, torch.tensor([1, 2, 3, 4]), 3, 0.0)
    assert model.lengths == [3, 3, 3]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_decoder_continues_beyond_its_context_as_a_fresh_window_would(positions: str) -> None:
    torch.manual_seed(0)
    model = GPT([6], VOCABULARY, width=16, depth=2, positions=positions, dropout=0.5)
    prompt = torch.arange(4) % VOCABULARY
    whole = generate(model, prompt, 12, 0.0)
    assert torch.equal(whole[:4], prompt) and len(whole) == 16
    model.eval()
    for end in range(4, 16):
        window = whole[max(0, end - 6) : end]
        assert whole[end] == model(window[None])[0, -1].argmax()


def test_the_model_is_left_as_it_was() -> None:
    model = Counting().train()
    generate(model, torch.tensor([1]), 2)
    assert model.training and model.modes == [False, False]
    assert generate(model, torch.tensor([5, 6]), 0).tolist() == [5, 6]


def test_what_cannot_be_continued_says_why() -> None:
    with pytest.raises(ConfigError, match="nothing to continue"):
        generate(Counting(), torch.tensor([], dtype=torch.int64), 3)
    with pytest.raises(ConfigError, match=r"maps tokens \(1, 1\) to \(1, 4\).*Try model=gpt"):
        generate(nn.Sequential(nn.Embedding(7, 4), nn.Flatten(1)), torch.tensor([1]), 3)
    for wrong in ({"count": -1}, {"temperature": -0.1}, {"temperature": float("nan")},
                  {"top_k": 0}, {"context": 0}):  # fmt: skip
        with pytest.raises(SettingError, match=next(iter(wrong))):
            generate(Counting(), torch.tensor([1]), **{"count": 3, **wrong})  # type: ignore[arg-type]
