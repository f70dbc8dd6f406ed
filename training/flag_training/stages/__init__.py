"""The stages of a fit: tile encoder, mean head, denoising, out-of-distribution score."""
