"""StructureDefinitions that ship: Foramen's own profiles (`*.json`) and R4's definitions without their texts."""
