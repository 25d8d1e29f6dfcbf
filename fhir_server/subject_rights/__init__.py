"""Rights of the person whose record it is: a copy of it (PIPL art. 45), erasure and what stands against it (art. 47).

ADR 0028; docs/how-to/subject_rights.md
"""
