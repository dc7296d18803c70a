"""One training: its configuration, its loop, its evaluation, its checkpoints."""
