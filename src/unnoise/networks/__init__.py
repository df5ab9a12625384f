"""Networks, and what conditions them."""
