"""Implementation guides as npm-format packages: read, installed at run time, found by canonical URL."""
