"""Step `regions`: where the things in each artwork are.

Sources of regions are the modules of `sources`; all give rows of `schema.REGIONS`. Nothing
heavy is imported here: params can be read without torch.
"""
