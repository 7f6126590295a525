"""What is searched and how it is priced: costs, problems, exact fronts, the front file."""
