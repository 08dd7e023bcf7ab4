"""The HTML pages: their parts, the order of the parts, and the libraries packed into them."""
