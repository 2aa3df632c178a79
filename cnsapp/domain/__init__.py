"""Plain dataclasses and pure functions: no database, no files, no Streamlit, no torch."""
