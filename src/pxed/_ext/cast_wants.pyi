"""Who wants what: bits of whole chunks and claims of symbols, with their counts. C level only."""
