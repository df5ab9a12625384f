"""A page to draw from trained models, served to this machine; needs gradio."""
