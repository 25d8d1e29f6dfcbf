"""Formats on the wire: which one a client wants, and an answer written in it. The inside speaks JSON bytes only."""
