"""The server: a library and a model for programs, by OpenAI's protocol and our own. `docs/serve.md` tells how it is
used, `docs/threats.md` what it guards against."""
