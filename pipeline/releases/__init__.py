"""ArtEmis, WikiArt and APOLO as they are published, with their quirks: the one place that reads each."""
