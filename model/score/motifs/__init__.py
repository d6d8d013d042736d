"""Whether words look at the picture: the motifs that an explanation names, and those that are in the artwork.

Only of the built-in gallery, whose every artwork is known; of other data nothing here is computed.
"""
