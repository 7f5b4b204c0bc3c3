"""`qed drill`: attacks on a signed log of its own, and whether its guards notice them."""
