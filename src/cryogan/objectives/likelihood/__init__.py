"""The likelihood of images given a map, integrated over all poses, and its maximisation by EM.

`log p(y | V) = log ∫ exp(-½ ‖y - C S_t P_R V‖²) dR dt + const` in units of the noise. For every
image `-½ ‖y - C p‖² + ½ ‖y‖² = Re⟨p, C y⟩ - ½ ⟨|p|², C²⟩`: images against poses are products of
matrices. Everything is done on rings of Fourier space and their circular harmonics, where a turn of
the image plane multiplies coefficients by phases. Poses are searched from coarse to fine
(`pose_search`); the map of highest posterior is the solution of one linear system
(`normal_equations`).
"""
