"""python -m benchmarks.ssd.profile"""

import sys

from benchmarks.ssd.profile.command import main

sys.exit(main())
