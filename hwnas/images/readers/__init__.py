"""One file for each kind of source: what it holds, as plain arrays or names of files."""
