"""What retrainings say about configurations: intervals, differences, tables, optimism, repeats.

Pure functions of correctness tables; nothing here trains, reads a file or prints. A table is (S, n):
row s is one retraining, on a draw of labels and with a seed of its own; column i is a test image,
the same for every retraining; an entry is 1 where the image was classified correctly and 0 where
not. Tables that are compared are paired: row s has the same draw and seed in each of them.

One file per question, docs/statistics.md tells them in a page:

- ``crossed``: how exact is a mean over retrainings and images, and a difference of two?
- ``cells``: which of many cells differ, held together over the table that is printed?
- ``letters``: how are groups of cells shown?
- ``selection``: which configuration won, and how much did the search promise too much?
- ``repeats``: what is an interval about, and how many retrainings does it need?

Three more are about the trials of one search, docs/analysis.md tells them:

- ``search_size``: what would fewer trials have found, and would they have beaten the published default?
- ``importance``: how much does each hyperparameter explain, and how sure is that?
- ``flatness``: how far may one hyperparameter move from the best before accuracy falls?

Only numpy and ``scipy.special``: ``scipy.stats`` alone takes longer to load than ``tune-ssl status``.
"""
