"""Features → expression: the spatial graph, the gene diffusion transformer, its sampler, its weights."""
