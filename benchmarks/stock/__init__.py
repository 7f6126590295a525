"""Networks as users train them without hwnas: a plain loop, and public designs for small images."""
