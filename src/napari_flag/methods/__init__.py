"""Methods of predicting expression from features and graph, behind one protocol."""
