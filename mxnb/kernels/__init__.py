"""Pure maths: one idea per function, time-major, unbatched over environments."""
