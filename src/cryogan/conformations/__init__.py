"""Conformations: the latent, the path along it, and the folder of maps that a run writes."""
