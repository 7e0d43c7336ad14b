"""From detections to one number: the evaluation of all ranks, and the metrics of COCO and Pascal VOC."""
