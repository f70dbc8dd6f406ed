"""Foundation encoders: catalogue, networks, weights files and the hub."""
