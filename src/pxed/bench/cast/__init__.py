"""A room of machines that get the same image at the same time, for `pxed bench cast`.

`plan` says what happens to whom, `room` is the network, `parties` are pxed and its peers, `play` brings them together,
`result` makes figures of it.
"""
