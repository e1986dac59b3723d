"""x"""
def demo() -> None:
    """A two-minute tour."""
