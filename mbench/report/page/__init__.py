"""The HTML pages: what they show, in what order, and the libraries packed into them."""
