"""The HTML report of a run: one file that opens anywhere, drawn in the browser from plain data."""
