"""One file for each part of the administration: its pages and what their forms do."""
