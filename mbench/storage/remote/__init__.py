"""A store elsewhere, named by a URL: object storage and whatever else fsspec reaches."""
