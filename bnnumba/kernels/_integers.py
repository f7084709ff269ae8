"""Integers of 16 bits as the kernels take them, records: uint16 and int16 stand for half precision."""

import numpy as np

INT16 = np.dtype([("int16", np.int16)], align=True)  # otherwise Numba takes arrays of them for unaligned ones
UINT16 = np.dtype([("uint16", np.uint16)], align=True)
