"""Local files of text: their formats, their records, and what is no text."""
