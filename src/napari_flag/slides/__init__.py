"""What is on the glass: slides, tissue, spots, tiles."""
