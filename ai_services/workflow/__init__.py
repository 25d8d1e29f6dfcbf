"""Durable runs: a Task is claimed, worked on step by step, and answered, also after kill -9 (stage 4).

https://hl7.org/fhir/R4/task.html#statemachine; steps are remembered by DBOS in PostgreSQL.
"""
