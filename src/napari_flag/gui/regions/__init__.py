"""The Regions dock: regions, domains, labels, and what tells them apart."""
