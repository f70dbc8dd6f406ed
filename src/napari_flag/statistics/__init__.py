"""Arrays in, numbers out: accuracy, Moran's I, co-expression, domains, markers, gene sets."""
