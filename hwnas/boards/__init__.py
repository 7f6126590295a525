"""Boards before they are targets: what one is, what it has and lacks, and its target files."""
