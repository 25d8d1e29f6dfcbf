"""One file a command; the composition is in `foramen.cli`."""
