"""MRC files (MRC2014, Cheng et al., J. Struct. Biol. 192, 2015): maps and image stacks.

Headers are read and checked before any pixel is; stacks are read image by image. Arrays are
indexed [z, y, x] (maps) and [image, y, x] (stacks). Everything written is mode 2 (float32).
"""

from cryogan.io.mrc.header import MrcHeader, read_header
from cryogan.io.mrc.maps import Map, read_map
from cryogan.io.mrc.stacks import MrcStack
from cryogan.io.mrc.writing import StackWriter, write_map, write_stack

__all__ = [
    "Map",
    "MrcHeader",
    "MrcStack",
    "StackWriter",
    "read_header",
    "read_map",
    "write_map",
    "write_stack",
]
