"""A network and machines of our own on one Linux host: namespaces, a site DHCP server, QEMU machines, a bootable disk.

Used by `tools/demo` and by the end-to-end tests. Everything made here ends with the process that made it.
"""
