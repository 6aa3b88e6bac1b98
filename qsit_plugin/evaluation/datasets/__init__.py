"""Published datasets: annotation files as rows, and where their images lie."""
