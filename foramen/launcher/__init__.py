"""The launcher: try launches of apps, and read each request and answer of the code flow (`/apps/launcher`)."""
