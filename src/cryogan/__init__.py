"""cryogan: 3D structures from cryo-EM particle images, without ever estimating a pose."""

__version__ = "0.1.0"
