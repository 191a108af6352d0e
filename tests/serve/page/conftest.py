from browsing import browser, served

__all__ = ["browser", "served"]
