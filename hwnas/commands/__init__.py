"""Commands that are not stages. They import what they need when they run."""
