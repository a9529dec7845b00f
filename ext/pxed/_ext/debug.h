/* PXED_DEBUG is 1 in debug, trace and sanitizer builds (tools/pxed_build.py), else 0. */
#ifndef PXED_DEBUG
#define PXED_DEBUG 0
#endif
