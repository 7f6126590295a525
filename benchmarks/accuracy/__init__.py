"""Parts of benchmarks/table_accuracy.py."""
