"""Many models x methods x images, resumable, and the tables made from them."""
