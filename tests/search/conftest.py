from hashed import opened

__all__ = ["opened"]
