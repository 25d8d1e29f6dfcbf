"""Rejected images: IHE Imaging Object Change Management (IOCM), their restoration and permanent deletion (ADR 0042)."""
