"""Shared Streamlit code: the frame, the labelling component, charts, words."""
