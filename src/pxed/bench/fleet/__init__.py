"""A fleet of virtual machines that boot from pxed the whole way, in virtual time or over a real network.

`machine` (with `dhcp`, `tftp`, `script`) is the firmware, sans-I/O: bytes and time in, bytes and deadlines out; its
clocks are the table `pxed.bench.firmware`. `virtual` runs it against pxed's own state machines in a network that has
only virtual time (`network`, `server`); `lab` runs the same machines against a real pxed in network namespaces.
"""
