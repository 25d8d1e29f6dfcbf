"""The shared kernel: settings, errors, access, audit, ids, log. Imports nothing else of ours."""
