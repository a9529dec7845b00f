"""What the control plane tells a sender, as commands. But for Order, C level only."""

from typing import final

@final
class Order:
    """A command for a certain kind of sender, ready to be posted, once. Made by functions of that sender's modules."""
