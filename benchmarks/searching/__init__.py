"""Problems, peers and rounds of benchmarks/search.py."""
