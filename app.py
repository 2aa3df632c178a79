"""The map: which pages there are, the frame around them, and the routes beside them.

The server imports this file for `app`; Streamlit runs it again, as a script, for every page view.
"""

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

if get_script_run_ctx(suppress_warning=True) is None:  # imported by the server
    from cnsapp.ui import start

    app = st.App(
        __file__, routes=start.routes(), lifespan=start.lifespan, middleware=start.middleware()
    )
else:
    from cnsapp.ui import frame

    frame.begin()
    page = st.navigation(
        {
            "": [st.Page("pages/home.py", title="Home", icon=":material/home:", default=True)],
            "Loop": [
                st.Page("pages/images.py", title="Images", icon=":material/photo_library:"),
                st.Page("pages/label.py", title="Label", icon=":material/label:"),
                st.Page("pages/train.py", title="Train", icon=":material/model_training:"),
                st.Page("pages/review.py", title="Review", icon=":material/fact_check:"),
                st.Page("pages/explain.py", title="Explain", icon=":material/visibility:"),
                st.Page("pages/predict.py", title="Predict", icon=":material/batch_prediction:"),
            ],
            "Library": [
                st.Page("pages/models.py", title="Models", icon=":material/inventory_2:"),
                st.Page("pages/settings.py", title="Settings", icon=":material/settings:"),
            ],
        },
        expanded=True,
    )
    frame.run(page)
