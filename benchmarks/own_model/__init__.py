"""Parts of own_model.py: public models, and what is measured with them."""
