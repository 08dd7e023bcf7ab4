"""What is kept on disk or fetched, identified by its content: artefacts, texts, checkpoints."""
