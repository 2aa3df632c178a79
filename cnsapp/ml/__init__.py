"""Backbones, features, heads, saliency and model files: torch lives here; no database."""
