"""What every other room stands on, and what knows nothing of speech.

Config tables and the frozen dataclasses they become (`config`), text read and files written whole or not
at all (`files`), the number of cores (`cores`), where a result came from (`provenance`), functions over
arrays as machine code (`compiled`).

In: TOML, paths, functions. Out: dataclasses, texts, files. Public face: `option`, `section`, `check_bounds`,
`from_table`, `read_toml`, `to_toml`; `read_text`, `write_text`, `replace_file`; `count_cores`,
`choose_threads`; `make_provenance`; `compile_function`.
"""
