"""One self-contained HTML page that says how good a prediction is, what it shows, and how it was made."""
