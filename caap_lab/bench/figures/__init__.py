"""What the scripts in figures/ draw from: data, checks, and what several figures share."""
