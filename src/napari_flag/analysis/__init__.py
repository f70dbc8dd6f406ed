"""AnnData in, frozen result out: the only caller of the statistics."""
