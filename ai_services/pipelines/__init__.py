"""One room per use of imaging AI (stage 4); no pipeline imports another.

Each holds manifest.yaml (intended use, input rules, model and SHA-256), pipeline.py and a model card.
"""
