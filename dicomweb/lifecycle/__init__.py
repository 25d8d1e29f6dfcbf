"""Lifecycle of stored images: what is held, how long it is kept, where its files lie, and how much room it takes.

ADR 0039; docs/how-to/image_lifecycle.md
"""
