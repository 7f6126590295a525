"""Parts of faults.py, one file each, with the documents that they damage."""
