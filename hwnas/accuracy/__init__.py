"""Accuracy of subnets: measured on validation images, and predicted."""
