"""A trained model put to use: its detections in pictures, its export, how fast it answers."""
