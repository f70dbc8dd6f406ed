"""Text of a report: headings, definitions, captions and notices."""

from typing import Final

METRICS: Final = {
    "PCC": "gene by gene",
    "MSE": "error",
    "cPCC": "without depth",
    "GSC": "co-expression",
    "SSC": "spatial pattern",
    "amplitude": "strength",
    "CRPS": "of a value",
    "ES": "of a spot",
    "ES-map": "of a map",
    "VS-gene": "pairs of genes",
    "VS-space": "pairs of spots",
}
"""Metric or proper score → a word for it; what it means is `analysis.scores.MEANING`."""
EXPECTATION: Final = "X is the single best guess of every value. It is judged by these three."
DRAWS: Final = (
    "A draw is one expression that could have been measured here, noise included. What goes together and "
    "what clusters is judged on draws, {mean}: an expectation cannot have the structure of a "
    "noisy truth."
)
PROPER: Final = (
    "Proper scores of the first {number} draws: 0 is best, and nothing but a better distribution lowers "
    "them. They depend on the genes and on the number of draws, so compare them on the same slide only."
)
TOGETHER: Final = (
    "A high score in one of them alone means little: depth alone gives a high PCC, unrelated tissue a "
    "high GSC and SSC. Compare all of them. In brackets: 95 % bootstrap intervals, over blocks of "
    "neighbouring spots or, for GSC, SSC and ES-map, over genes."
)
ONE_ARRAY: Final = (
    "All metrics of X and of one draw, since the table of FLAG's paper reads all of them from one array; "
    "GSC, SSC and amplitude of X are not what X is good for."
)
NO_TRUTH: Final = (
    "Nothing was measured on this slide, or no measurements were given, so this report cannot say how "
    "good the prediction is. It shows what was predicted, and how it was made."
)
SLIDE: Final = (
    "The section with the spots at their true size. Where the weights can judge it, each spot's distance "
    "from the tissue they were trained on; beyond 1 a spot looks unlike it."
)
MAPS_ALONE: Final = (
    "Of the genes that cluster most in the prediction, those with patterns unlike each other. Below each "
    "map the range of its colours, dark to bright, log2(count + 1)."
)
MAPS: Final = (
    "Of the genes that cluster most in the truth, those with patterns unlike each other; then the best "
    "and the worst predicted of the quarter that clusters most. One scale for prediction and truth, dark "
    "to bright, its range below, log2(count + 1)."
)
MORAN: Final = (
    "Each dot is a gene. Moran's I is high where neighbouring spots are alike. Genes on the dashed line "
    "cluster as much in a draw as in the truth; both hold the noise of a measurement, which the expectation "
    "does not. SSC is the correlation of the dots. Named are the genes at either end of the truth and those "
    "off the common trend."
)
COEXPRESSION: Final = (
    "Correlation over spots of every gene with every other, in the order of the truth's clustering. Below"
    " the diagonal predicted, above it measured: alike where the square looks mirrored. Each spot's mean "
    "over all genes is taken away first, since depth, which all genes share, hides the rest; GSC is computed "
    "with depth, as it is defined. Counting noise pulls measured correlations towards 0."
)
COEXPRESSION_ALONE: Final = (
    "Correlation over spots of every gene with every other as predicted, ordered by their own clustering. "
    "Each spot's mean over all genes is taken away first, since depth, which all genes share, hides the rest."
)
DOMAINS: Final = "Groups of neighbouring spots alike in composition"
DOMAINS_BY: Final = {
    "leiden": "found by Leiden on a joint graph of expression and neighbourhood",
    "k-means": "found by k-means on expression and its mean over the neighbours",
    None: "as the file of the prediction states them",
}
DOMAINS_MATCHED: Final = (
    " ARI and NMI compare the two groupings: 1 is the same, an ARI of 0 is chance. Colours of the "
    "prediction are matched to those of the truth."
)
LABELS: Final = (
    "Labels were given by a pathologist or another method, and have colours of their own. ARI: 1 is the same "
    "grouping, 0 is chance; NMI: 0 to 1; over the spots that have both."
)
OVERLAP: Final = (
    "For every domain of the truth, genes are ranked by how much higher they are in it than elsewhere, "
    "once by the prediction and once by the truth, both over the spots that were measured. A bar shows how "
    "many of the first 20 or 50 are the same; the grey line is what two unrelated rankings would share."
)
SET_MAP: Final = (
    "Each gene of the set in each domain: its mean over the domain's spots less its mean over the section, "
    "log2(count + 1), after each spot's mean over all genes was taken away. Red is above the section's mean, "
    "blue below, grey was not measured. Genes are ordered by the domain where they are highest; those of the "
    "set that the panel lacks are not shown."
)
PATHWAYS: Final = (
    "A set counts as raised where its genes come before the panel's other genes in the order of how much "
    "each is raised in the domain (rank sum, false discovery rate 5 % over the sets of a domain). Bold: by "
    "both. "
    "Chance is what the truth shares with as many sets of the prediction after its spots were dealt to the "
    "domains at random. A panel holds a few genes of a set: this says nothing about the others."
)
CALIBRATION: Final = (
    "How often the truth lies within X ± z · sd. On the dashed line the spread is as wide as it says; "
    "above it, wider. Counts of 0 are inside almost every interval, so measurements above 0 are shown "
    "apart."
)
COLUMNS: Final = {
    "gene": ("gene", "symbol"),
    "pcc": ("PCC", "Pearson's r across spots"),
    "cpcc": ("cPCC", "the same after each spot's mean is taken away"),
    "spearman": ("Spearman", "rank correlation across spots"),
    "mse": ("MSE", "mean squared error"),
    "amplitude": ("amplitude", "variance predicted / measured"),
    "moran": ("Moran's I", "of the prediction"),
    "q": ("q", "of the prediction's Moran's I, Benjamini–Hochberg over genes"),
    "moran_measured": ("Moran's I, measured", "of the truth"),
    "mean": ("mean", "log2(count + 1), measured where there is a truth"),
}
"""Column of the table of genes → its heading, and what it means."""
