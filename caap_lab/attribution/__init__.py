"""Attribution maps and the methods that make them."""
