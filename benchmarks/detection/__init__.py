"""What detectors share whatever their network: COCO folders and their check, data paths, the session around a training step,
evaluation, downloads, the embedded pictures.

No benchmark of its own, and it imports none.
"""
