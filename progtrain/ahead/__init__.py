"""Compiling ahead: a process beside the run leaves in inductor's cache what a growth will need."""
