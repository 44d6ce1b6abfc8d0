"""A second reading of the specification: everything in the vectors, computed from spec/ alone.

Nothing here imports the programs that the vectors are for. Only PyNaCl, cryptography and the
standard library are used, so encodings, derivations, ratchet, HPKE and SFrame are written again.
"""
