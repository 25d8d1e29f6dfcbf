"""The only room with SQL: tables, writing, reading, searching."""
