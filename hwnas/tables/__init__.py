"""From measurements to a table that says how good it is."""
