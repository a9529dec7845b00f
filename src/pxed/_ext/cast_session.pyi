"""Sessions and receivers of a CastSender. C level only."""
