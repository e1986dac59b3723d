"""Memory that a network reads and writes: slots, heads that find their places, links, associative memories."""
