"""The only package that imports ray: a cluster, Tune's three roles, and the images' way to the nodes.

Everything Tune is told comes from ``tune_ssl.driver``, and nothing is read back from Tune's files.
"""
