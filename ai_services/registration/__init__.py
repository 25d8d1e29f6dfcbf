"""MR to CT of one patient: rigid registration that says how good it is, or that it could not (stage 4)."""
