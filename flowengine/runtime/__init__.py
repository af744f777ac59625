"""From a checked flow to running chains: compile, run, settle, drain."""
