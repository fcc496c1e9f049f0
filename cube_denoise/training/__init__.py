"""Train networks on samples drawn on the fly: seeded, resumable, judged held out.

A recipe says how a network is trained, and a task what: samples, loss, scores.
"""
