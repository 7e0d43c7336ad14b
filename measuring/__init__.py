"""How fast and how good what trains is: profiles and studies. The one room that may import both the harness and benchmarks.

No loop, configuration reader, log reader or writer of its own: it calls those that runs use, and nothing imports it.
"""
