"""A server for programs that already speak to a recogniser, and a page for people.

In: recordings over HTTP (as OpenAI's clients send them), live samples over WebSocket (as vosk's clients and
the page send them) and Wyoming (Home Assistant's protocol). Out: transcripts and live events as JSON,
subtitles and text. `engine` shares one recogniser between all requests; `decoding` reads uploads in
processes of their own.

Public face: ``settings`` (``ServerSettings``), ``app`` (``make_app``), ``running`` (``run_server``). Needs
the extra ``serve``. No torch is imported here.
"""
