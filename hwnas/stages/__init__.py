"""The stages of a run, each as functions that read files and write files."""
