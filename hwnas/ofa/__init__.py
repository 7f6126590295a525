"""What once-for-all published, read into ours: architecture dictionaries and files."""
