"""`init`: a params file for a csv and pictures of any kind, with what was understood of them."""
