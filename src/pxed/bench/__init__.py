"""`pxed bench`: measures pxed, and its peers beside it, with simulated clients that check every byte.

`lab`: two network namespaces and the servers in them. `peers`: the other servers of Debian. `measure`: what all storms
have in common. `tftp`, `http`, `dhcp`: storms and what came of them; `pxe_clients`: what DHCP clients say. `figures`:
medians and percentiles. `advice`: which knob is the limit, from what was measured.
"""
