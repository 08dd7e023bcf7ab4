"""The charts of the page, one a file, drawn as static SVG."""
