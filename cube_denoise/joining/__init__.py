"""Frames joined to one velocity: offsets over overlaps, ties to GNSS, east and up.

`frames` reads line-of-sight velocities of frames, `lattice` sums them up, `ground`
knows how the ground moves by others, `offsets` solves what every frame has too much,
`decompose` goes from lines of sight to components, `join` does all of it.
"""
