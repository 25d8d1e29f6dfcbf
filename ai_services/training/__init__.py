"""Training of the pipelines' networks (stage 11, learn). Needs torch and MONAI; serving never imports this package.

Set-up: ``make setup-train``; design notes in each pipeline's MODEL_CARD.md.
"""
