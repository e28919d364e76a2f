"""Networks, and loading weights into them."""
