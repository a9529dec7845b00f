"""What the control plane tells a sender, as commands. C level only."""
