"""What the apps of plain pages beside the sign-in share: the call, the frame of a page, the routes (ADR 0025, 0037)."""
