"""The adversarial game: configuration, losses, checkpoints and the loop."""
