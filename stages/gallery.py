"""Stage `gallery`: the built-in stand-in for ArtEmis, WikiArt and APOLO, in their released layouts."""

from pipeline.gallery import GalleryParams
from pipeline.gallery.release import build_step
from stages._run import Stage

STAGE = Stage("gallery", GalleryParams, build_step)

if __name__ == "__main__":
    STAGE.main()
