"""Imported code systems in the schema `terminology` of PostgreSQL; only this folder holds its SQL."""
