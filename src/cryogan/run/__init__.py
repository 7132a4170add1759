"""One way to run: the run folder, its log and checkpoints, half-sets side by side, results."""
