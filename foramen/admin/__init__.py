"""The administration app under `/apps/admin`: server-rendered pages for administrators (ADR 0025)."""
