"""A run: its folder, its stages as functions that read files and write files, and packages."""
