"""DIMSE beside the archive: an SCP for AE accounts, an SCU towards other systems (PS3.4, PS3.7, PS3.8)."""
