"""The report of what became of every tensor in a growth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import a_host, tied_gpt
from report_fakes import a_run, an_event
from run_kit import parts, train

from progtrain.contracts import Operator
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, grow
from progtrain.growth.inheritance import Fate, Inheritance, inheritance, own_tensors
from progtrain.growth.layout import moved
from progtrain.growth.operators.add_head import AddHead
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.insert_branch import InsertBranch
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.report import words


def report(name: str, operator: Operator) -> tuple[Grown, Inheritance]:
    grown = grow(a_host(name), operator, 1)
    told = inheritance(own_tensors(grown.host.model), own_tensors(grown.model), grown.edit)
    return grown, told


def names(fates: tuple[Fate, ...]) -> set[str]:
    return {fate.name for fate in fates}


def packed(rows: int) -> Edit:
    """`rows` units more in each of three packed parts."""
    part = Part("qkv.weight", 0, ("*", 3, "unit"), Role.PRODUCER)
    return Edit((WidenSpace("qkv", 2, 2 + rows, (part,)),))


def test_old_entries_in_the_corner_of_every_packed_part_are_found_there() -> None:
    old = torch.arange(24.0).reshape(6, 4) + 1
    new = torch.zeros(9, 4)
    new[[0, 1, 3, 4, 6, 7]] = old
    assert moved(("*", 3, "unit"), 2, 3)[0].tolist() == [0, 1, 3, 4, 6, 7]
    told = inheritance({"qkv.weight": old}, {"qkv.weight": new + (new == 0)}, packed(1))
    assert told.corner == (Fate("qkv.weight", (6, 4), (9, 4)),)
    new[3] += 1
    told = inheritance({"qkv.weight": old}, {"qkv.weight": new}, packed(1))
    assert told.changed == (Fate("qkv.weight", (6, 4), (9, 4)),) and not told.corner


def test_what_does_not_fit_is_told_by_name_with_both_shapes() -> None:
    old = {"qkv.weight": torch.ones(6, 4), "gone": torch.ones(3), "stays": torch.ones(2)}
    new = {"qkv.weight": torch.ones(10, 4), "stays": torch.ones(2), "extra": torch.ones(5)}
    told = inheritance(old, new, packed(1))
    assert told.unfit == (Fate("qkv.weight", (6, 4), (10, 4)), Fate("gone", (3,), None))
    assert told.whole == (Fate("stays", (2,), (2,)),)
    assert told.new == (Fate("extra", None, (5,)),)
    line = words.growth(run := a_run(), replace(an_event(run), inherited=told)).sentence()
    assert "DID NOT FIT: qkv.weight (6, 4) → (10, 4), gone (3,) → nothing" in line


def test_widening_puts_what_it_grows_into_corners_and_leaves_the_rest_whole() -> None:
    grown, told = report("mlp_none", WidenRandom("stem"))
    assert names(told.corner) == {"stem.weight", "stem.bias", "blocks.0.linear.weight"}
    assert not told.new and not told.unfit and not told.changed
    every = own_tensors(grown.model)
    for fate in told.corner:
        assert fate.after == tuple(every[fate.name].shape) != fate.before
    assert names(told.whole) == set(every) - names(told.corner)


def test_deepening_renames_what_is_whole_and_names_what_is_new() -> None:
    grown, told = report("mlp_batch", DeepenRandom(place="first"))
    new = set(own_tensors(grown.model)) - {
        grown.edit.rename(name) for name in own_tensors(grown.host.model)
    }
    assert names(told.new) == new and new
    assert len(told.whole) == len(own_tensors(grown.host.model)) and not told.corner


def test_shares_are_told_as_other_values() -> None:
    _, told = report("mlp_none", WidenDuplicate("stem"))
    assert names(told.changed) == {"blocks.0.linear.weight"}
    assert names(told.corner) == {"stem.weight", "stem.bias"}


@pytest.mark.parametrize("operator", [InsertBranch(), AddHead()])
def test_wrapped_modules_are_whole_under_their_new_names(operator: Operator) -> None:
    grown, told = report("mlp_none", operator)
    assert len(told.whole) == len(own_tensors(grown.host.model)) and not told.unfit
    assert names(told.new) == set(own_tensors(grown.model)) - names(told.whole)


def test_a_weight_of_two_names_is_looked_at_once() -> None:
    assert "head.weight" in tied_gpt().state_dict()
    _, told = report("tied", WidenRandom("embedding#2"))
    assert "embedding.weight" in names((*told.corner, *told.changed)) and not told.unfit


def test_a_report_comes_back_from_json() -> None:
    _, told = report("mlp_batch", WidenRandom())
    assert Inheritance.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_a_run_stores_the_report_and_tells_the_counts(tmp_path: Path) -> None:
    ended = train(parts("growth=schedule"), tmp_path, store=False)
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    stored = [row["inherited"] for row in rows if row["kind"] == "growth"]
    assert [Inheritance.from_json(each) for each in stored] == [
        event.inherited for event in ended.run.events
    ]
    told = ended.run.events[1].inherited
    assert told is not None and told.corner
    sentence = words.growth(ended.run, ended.run.events[1]).sentence()
    assert (
        f"inherited {len(told.whole)} tensors whole, {len(told.corner)} in the corner" in sentence
    )
