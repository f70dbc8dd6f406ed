"""Controls that docks share: forms, tables, plots, maps."""
