"""Parts of benchmarks/first_use.py: the photos with their traps, the wrong settings and folders."""
