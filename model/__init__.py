"""What is trained, and how it is judged. Reads shards, never the image folder.

Reading order: emosem (the network) - mask_decoder, projectors, captioner (its parts) - losses - data -
train - predict - score.
"""
