# A C constant: checks of our own invariants stand under `if PXED_DEBUG:` and compile away in release builds.

cdef extern from "debug.h" nogil:
    const int PXED_DEBUG
