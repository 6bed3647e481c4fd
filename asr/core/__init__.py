"""What every other room stands on, and what knows nothing of speech.

Config tables and the frozen dataclasses they become (`config`), files that are written whole or not at
all (`files`), the number of cores (`cores`), functions over arrays as machine code (`compiled`).

In: TOML, paths, functions. Out: dataclasses, files. Public face: `option`, `section`, `from_table`,
`read_toml`, `to_toml`; `replacing`, `write_text`; `compiled`.
"""
