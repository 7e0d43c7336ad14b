"""What detectors share whatever their network: COCO folders and their check, downloads, evaluation, pictures, phases of a step.

No benchmark of its own, and it imports none.
"""
