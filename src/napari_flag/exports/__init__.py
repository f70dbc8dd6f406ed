"""Write predictions in the formats of other programs: SpatialData, QuPath, OME-TIFF, AnnData, tables."""
