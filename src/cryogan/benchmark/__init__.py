"""The published tables made anew, and what all benchmarks share: cost, rows, curves, bounds."""
