"""Policy of multicast image sessions: how fast, who is moved out and why, who is late, when a session starts.

No I/O, no clock: figures and times in, rates and orders out. Rates are bytes of image data per second, times seconds of
one monotonic clock. `service.cast` asks it a few times a second, and the compiled sender does what it says.
"""
