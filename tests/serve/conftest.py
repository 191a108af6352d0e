from serving import serving, shared, tiny

__all__ = ["serving", "shared", "tiny"]
