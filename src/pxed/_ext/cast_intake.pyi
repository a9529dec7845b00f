"""Reports on their way in to a CastSender. C level only."""
