"""The explicit side of distribution matching: the likelihood of images given a map.

`log p(y | V) = log ∫ exp(-½ ‖y - C S_t P_R V‖²) dR dt + const` in units of the noise. For every
image `-½ ‖y - C p‖² + ½ ‖y‖² = Re⟨p, C y⟩ - ½ ⟨|p|², C²⟩`: images against poses are products of
matrices. Everything is done on rings of Fourier space and their circular harmonics (`polar`), where
a turn of the image plane multiplies coefficients by phases. Posteriors are searched from coarse
to fine (`expectation`); the map that explains them best is the solution of one linear system
(`maximisation`).
"""
