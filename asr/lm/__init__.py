"""Word n-gram language models: estimated from text, read from ARPA, looked up from compiled code.

From low to high: ``vocabulary`` (words as numbers), ``model`` (the arrays and the look-up: its
docstring has the layout), ``arpa`` (the text format that everybody reads), ``storage`` (the binary
file that opens at once).
"""
