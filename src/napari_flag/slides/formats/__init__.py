"""Files: readers of images, tables, counts, annotations and labels, one module per family."""
