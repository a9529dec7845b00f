"""What a session sends next: repairs, and the walk. C level only."""
