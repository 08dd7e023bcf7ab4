"""What is kept on disk or fetched, found again by its content: artefacts, texts, checkpoints."""
