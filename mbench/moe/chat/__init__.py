"""Chat templates: conversations as the text that a model was trained to read, within bounds."""
