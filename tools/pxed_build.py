"""Build backend: setuptools.build_meta, plus the options of our Cython modules.

Environment: PXED_DEBUG=1 (-O0, asserts, bounds checks), PXED_TRACE=1 (also line
tracing, for coverage), PXED_SANITIZE=1 (address and undefined-behaviour sanitizers),
PXED_FUZZ=1 (the same, and clang's marks of where a fuzzer has been; with CC=clang),
PXED_WERROR=1 (warnings are errors).
"""

import os
from pathlib import Path

from setuptools import Extension
from setuptools.build_meta import *  # noqa: F403  (the PEP 517 and PEP 660 hooks)
from setuptools.command.build_ext import build_ext as _build_ext

SRC = "ext/pxed/_ext"


def _on(name: str) -> bool:
    return os.environ.get("PXED_" + name) == "1"


class build_ext(_build_ext):
    """Compiles `ext/` with one shared Cython utility module and one set of flags."""

    def finalize_options(self) -> None:
        from Cython.Build import cythonize  # late: metadata hooks do not need Cython

        trace, sanitize, fuzz = _on("TRACE"), _on("SANITIZE"), _on("FUZZ")
        debug = trace or sanitize or fuzz or _on("DEBUG")
        cflags = ["-O1" if fuzz else "-O0", "-g3", "-UNDEBUG"] if debug else ["-O2", "-g0"]
        cflags += [
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Wno-cast-function-type",
            "-Wno-missing-field-initializers",
        ]
        if _on("WERROR"):  # where we work; a user's newer compiler may warn of what ours does not
            cflags.append("-Werror")
        ldflags = ["-fsanitize=address,undefined"] if sanitize or fuzz else []
        if fuzz:  # clang calls nothing added to a null pointer a mistake; Cython's tables of strings do that
            ldflags += [
                "-fsanitize=fuzzer-no-link",
                "-fno-sanitize=pointer-overflow",
                "-fno-sanitize-recover=undefined",
            ]
        macros = [("PXED_DEBUG", "1")] if debug else []
        if trace:  # coverage's C tracer needs the classic trace hooks on 3.13 and later
            macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

        exts = list(self.distribution.ext_modules)
        exts.append(Extension("pxed._ext._cyutility", [SRC + "/_cyutility.c"]))
        for ext in exts:
            ext.include_dirs = [SRC]
            ext.extra_compile_args = cflags + ldflags
            ext.extra_link_args = ldflags
            ext.define_macros = macros

        stamp, flags = Path("build/flags"), repr((cflags, ldflags, macros))
        stale = not stamp.exists() or stamp.read_text() != flags
        jobs = os.cpu_count() or 1
        self.distribution.ext_modules = cythonize(
            exts,
            include_path=["ext"],
            shared_utility_qualified_name="pxed._ext._cyutility",
            build_dir=None if trace else "build/cython",  # Cython.Coverage looks for .c beside .pyx
            nthreads=jobs,
            force=stale,
            compiler_directives={
                "language_level": "3",
                "freethreading_compatible": True,
                "embedsignature": True,
                "wraparound": False,
                "cdivision": True,
                "boundscheck": debug,
                "linetrace": trace,
            },
        )
        super().finalize_options()
        self.force = self.force or stale
        self.parallel = self.parallel or jobs
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(flags)
