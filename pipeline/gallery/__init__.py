"""The gallery: a drawn stand-in for ArtEmis, WikiArt and APOLO, in exactly their released layouts.

`world` says what there is and what it evokes, `scenes` paints it (`motifs_*` draw the things, `styles` the
brushwork), `grammar` speaks about it, `release` writes the folders. Everything is a pure function of a seed.
"""
