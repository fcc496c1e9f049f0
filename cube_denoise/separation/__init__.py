"""Split a stack into components, cluster them, and take out those that are atmosphere.

The steps, a module each: `coarse` reads the pairs at fewer pixels; `sources` splits
them by a variational autoencoder, PCA, FastICA or NMF; `clusters` finds components that
come again; `evidence` says of each cluster what it is and whether it goes; `removal`
inverts what goes to dates and takes it out of the pairs; `methods` makes corrections of
them, which `correct.correct` takes by name.
"""
