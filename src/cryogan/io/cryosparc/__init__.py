"""cryoSPARC particle files (.cs): reading poses and CTFs, writing particles with poses.

A .cs file is a NumPy structured array (`.npy` format), one record a particle. The conventions
were established from three sides: cryoSPARC's own conversion of a pose to RELION's Euler angles,
contributed to pyem's `csparc2star` (asarnow/pyem, pull request 5), makes RELION's matrix the
transpose of the rotation `exp([pose]ₓ)`, so that this rotation is `Pose.rotation`; there, `shift`
becomes RELION's origin with its sign unchanged, in pixels of `alignments3D/psize_A`
(asarnow/pyem, pull request 125), so that `Pose.shift_A` is its negative; and in refined data
(T20S, D7) the directions `R e_z` show preferred views while those of Rᵀ are uniform in azimuth,
as in-plane angles must be.

What is written follows the same conventions and has the fields, in their types, of files that
cryoSPARC exported. It was checked against these files, our own reader and the published
converter's conventions, never against cryoSPARC itself.
"""

from cryogan.io.cryosparc.ctf import read_ctf
from cryogan.io.cryosparc.poses import read_poses
from cryogan.io.cryosparc.records import read_records
from cryogan.io.cryosparc.writing import write_particles

__all__ = ["read_ctf", "read_poses", "read_records", "write_particles"]
