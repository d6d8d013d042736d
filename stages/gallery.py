"""Stage `gallery`: the built-in stand-in for ArtEmis, WikiArt and APOLO, in their released layouts."""

from pipeline.gallery.step import build_gallery
from pipeline.gallery.world import GalleryParams
from stages._run import Stage

STAGE = Stage("gallery", GalleryParams, build_gallery)

if __name__ == "__main__":
    STAGE.main()
