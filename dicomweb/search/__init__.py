"""Search (QIDO-RS) inside: what is asked, as SQL, and what is answered."""
