"""The imaging agent: runs in the environment, claims the machine's job and writes its disk.

It imports only what the environment carries: `wire`, `images.manifest`, `images.chunk`, `types`, `errors`, `_ext`.
"""
