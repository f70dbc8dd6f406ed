"""AnnData → tables: accuracy, Moran's I, co-expression."""
