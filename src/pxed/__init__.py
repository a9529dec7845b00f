"""pxed: a network preboot and imaging server."""
