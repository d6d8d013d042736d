"""What is trained, and how it is judged. Reads shards, never the image folder.

Reading order: emosem (the network and its losses) - data (shards to batches) - train - predict - score.
docs/architecture.md has the map.
"""

import pipeline  # noqa: F401 - sets the threads, which has to precede torch
