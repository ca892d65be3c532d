"""What a run was told of an option goes when the command that continues it chooses another.

A run of `hardware=fsdp hardware.devices=2` goes on with `resume=<directory> hardware=cpu`, which
has no such setting; the line `changed: hardware.devices: 2 -> null` tells that it went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from progtrain.command_line import tree
from progtrain.command_line.argv import Command, key_of
from progtrain.command_line.resume import stored_choices
from progtrain.command_line.session import Session
from progtrain.command_line.sweep import within
from progtrain.errors import ConfigError


def leave(session: Session, command: Command, typed: Sequence[str]) -> Command:
    """`command` without stored settings of groups for which `typed` chooses another option, where
    that option lacks them. `command` is the continued one, `typed` what was given by hand."""
    if command.overrides == tuple(typed):
        return command
    changed = _changed(session, command, typed)
    by_hand = {key_of(text) for text in typed}
    at_risk = [
        text
        for text in command.overrides
        if key_of(text) not in by_hand and any(within(key_of(text), group) for group in changed)
    ]
    if not at_risk:
        return command
    rest = [text for text in command.overrides if text not in at_risk]
    try:
        config = session.compose([text for text in rest if key_of(text) in session.groups])
    except ConfigError:  # an option that is not there: the check of all settings tells it
        return command
    known = config.hydra.runtime.choices
    gone = {
        t for t in at_risk if key_of(t) not in known and not tree.find(config, key_of(t)).exists
    }
    return replace(command, overrides=tuple(t for t in command.overrides if t not in gone))


def _changed(session: Session, command: Command, typed: Sequence[str]) -> list[str]:
    """Groups for which another option is typed than the run was told of."""
    before = stored_choices(command)
    chosen = {key_of(text): text.partition("=")[2] for text in typed}
    return [
        group
        for group, option in chosen.items()
        if group in session.groups and group in before and str(before[group]) != option
    ]
