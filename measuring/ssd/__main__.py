"""python -m measuring.ssd"""

import sys

from benchmarks.detection.data_path import nvjpeg

nvjpeg.prefer_installed()  # as a run does, before torchvision brings its own

from measuring.ssd.command import main  # noqa: E402

sys.exit(main())
