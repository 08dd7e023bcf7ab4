"""The pruning methods that come with mbench, written as any other plugin is."""
