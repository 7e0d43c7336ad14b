"""python -m measuring.ssd"""

import sys

from measuring.ssd.command import main

sys.exit(main())
