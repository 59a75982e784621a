"""The runner: training loop, checkpoints, metrics. Knows the Agent record only."""
